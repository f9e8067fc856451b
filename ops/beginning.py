"""Where a log begins that a dump goes before: a position is noted, the dump taken and imported, and
the capture begins exactly there.

Invariant: what would leave a gap between the dump and the log is refused before the log is touched.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

from capture.source import Noted
from ops.compose import opened_log, opened_source, source_config
from ops.config import Config
from ops.preflight import check_source, refuse
from ops.prepare import PREPARE
from schemas.change import Position
from schemas.errors import Misconfigured, SourceLost
from transport.record import Checkpoint


def note(
    config: Config, name: str, *, hold: bool, beat: bool
) -> Generator[Noted | None, None, None]:
    """A position for a dump that is taken from now on, as Source.note gives it; what preflight
    warns of is among its findings.

    Raises Misconfigured where the source could not be captured, or its log has begun already.
    """
    source_config(config, name)
    if (at := _stands_at(config, name)) is not None:
        raise begun(name, at)
    found, _ = check_source(config, name)
    found = [f for f in found if f.fix != PREPARE]
    refuse({name: found})
    with opened_source(config, name) as source, closing(source.note(hold=hold, beat=beat)) as notes:
        for noted in notes:
            yield noted and replace(noted, findings=(*found, *noted.findings))


def beginning(config: Config, name: str, text: str) -> Position:
    """The position at which the source's log, which holds nothing yet, is to begin.

    Raises Misconfigured or SourceLost where the capture could not begin exactly there. A log that
    stands just there has begun so, and goes on.
    """
    if not text.strip():
        raise Misconfigured(
            f"was told to begin {name} at a position, and not at which",
            hint=f"headwater position {name} prints one",
        )
    if source_config(config, name).first_copy == "rows":
        raise Misconfigured(
            f"was told to begin {name} at a position, and to copy all of its rows (first_copy)",
            hint=f'set first_copy = "identities" for the source {name}, or "none" where no foreign '
            "key is to be translated: the dump brings the rows",
        )
    if (at := _stands_at(config, name)) is not None:
        if at != text.strip():
            raise begun(name, at)
        return at
    with opened_source(config, name) as source:
        try:
            position = source.given(text)
        except SourceLost as error:
            anew = f"note a position anew, and take the dump after that: headwater position {name}"
            raise SourceLost(str(error), hint=anew) from error
        if missing := source.prepare(dry_run=True):
            raise Misconfigured(
                f"found {name} not prepared ({len(missing)} statements are missing): what was "
                "written since that position would not be in the stream",
                hint=f"exclude tables that are newer than the position; otherwise run headwater "
                f"prepare {name}, then headwater position {name}, and take the dump anew",
            )
    return position


def begun(name: str, at: Position) -> Misconfigured:
    """The error that says that the log has a position of its own."""
    return Misconfigured(
        f"found that the log of {name} has begun already, and stands at {at}",
        hint=f"to go on there: headwater capture {name}, without --from (a dump that is taken from "
        f"now on needs none); to begin anew: headwater drop {name} --log --yes",
    )


def _stands_at(config: Config, name: str) -> Position | None:
    """Where the source's log stands, None while it holds nothing."""
    with opened_log(config, name) as log:
        span = log.span()
    return None if span is None else Checkpoint.loads(span[1]).position
