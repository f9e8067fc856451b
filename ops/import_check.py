"""Whether an imported dump is as new as the position at which the target begins to read changes.

The dump itself says so: it carries the newest beat of its moment (schemas/beat.py). Invariant: "as
new" is only said when a beat that was committed after the position is in the import; what no beat
shows is said to be unknown, never to be well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from apply.target import Target
from capture.source import Source
from ops.compose import opened_log, opened_source, opened_target, target_config
from ops.config import Config
from schemas.beat import BEATS, Beat
from schemas.change import Position
from schemas.errors import Misconfigured, Operator
from transport.log import Log

UNKNOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """begins: the position from which the target reads changes. beats: the import's newest, by the
    source's schema. unknown: why nothing can be said; empty where the import is as new.
    """

    target: str
    begins: Position
    beats: Mapping[str, Beat | None]
    unknown: str = ""

    @property
    def exit_code(self) -> int:
        """0: as new; 3: unknown."""
        return UNKNOWN if self.unknown else 0


def import_check(config: Config, name: str, begin: str | None = None) -> Checked:
    """Compare the import in a target with where its changes begin: `begin`, or the log's beginning.

    Raises Operator where the import is older: what was committed between the two is in neither.
    """
    settings = target_config(config, name)
    with (
        opened_source(config, settings.source) as source,
        opened_target(config, name) as target,
        opened_log(config, settings.source) as log,
    ):
        begins = Position(begin.strip()) if begin else _beginning(log, target, settings.source)
        beats = target.beats(sorted({t.full_name.partition(".")[0] for t in source.describe()}))
        unknown = _unknown(source, begins, beats, name)
    return Checked(target=name, begins=begins, beats=beats, unknown=unknown)


def _unknown(
    source: Source, begins: Position, beats: Mapping[str, Beat | None], target: str
) -> str:
    """Why nothing is known ("": the import is as new); raises Operator for an older one."""
    noted = {beat.position: beat.number for beat in source.beats()}
    reasons = []
    for schema, beat in beats.items():
        if beat is None:
            reasons.append(f"the import of {schema} holds no beat ({BEATS})")
        elif beat.position == begins or source.reached(begins, beat.position):
            continue
        elif begins not in noted:
            reasons.append(
                f"no beat was written for that position: beat {beat.number} only shows that the "
                f"import of {schema} is as new as {beat.position}"
            )
        else:
            raise _older(source.name, target, schema, begins, noted[begins], beat)
    return "; ".join(reasons)


def _older(
    source: str, target: str, schema: str, begins: Position, number: int, beat: Beat
) -> Operator:
    return Operator(
        f"found the import of {schema} in {target} older than the position {begins}, at which its "
        f"changes begin: it holds beat {beat.number}, and that position's is {number}. What was "
        "committed between the two is in neither",
        hint="begin the changes where the import's own beat was noted (if the source still holds "
        f"that): headwater drop {source} --log --yes, headwater drop {target} --yes, headwater "
        f"prepare {target}, headwater capture {source} --from '{beat.position}'; or take a dump "
        f"anew, begun after headwater position {source} has ended",
    )


def _beginning(log: Log, target: Target, source: str) -> Position:
    """Where the log begins for a target that reads all of it; the first commit there is empty."""
    first = next(chain(filter(None, log.read(None, follow=False)), [None]))
    if first is None:
        raise Misconfigured(
            f"was not told which position to check by, and the log of {source} holds nothing yet",
            hint="name the position that was noted: --from POSITION",
        )
    if first.from_position and target.applied() is not None:
        raise Misconfigured(
            f"found that the log of {source} no longer holds its beginning, which this target has "
            "passed",
            hint="name the position at which it began: --from POSITION",
        )
    return first.from_position or first.position
