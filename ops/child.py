"""A child server is brought up, or some of its rows are made exempt, while everything else goes on.

Invariant: a child that begins in the middle of a log begins just before the copy that was asked for
it: every row that it is to have comes by that copy or after it.
"""

from collections.abc import Callable, Iterator, Sequence
from time import monotonic

from apply.target import Exemption
from ops.catch_up import Progress, catch_up
from ops.compose import opened_log, opened_source, opened_target, target_config
from ops.config import Config
from ops.preflight import check_all, refuse
from ops.prepare import prepare_all
from ops.readers import adopt
from ops.resync import TAKEN_WITHIN_S, resync
from ops.supervise import Signals
from schemas.change import Offset, Position
from schemas.errors import Misconfigured, Operator
from schemas.progress import asked_copies
from schemas.table import Table
from transport.asked import upto
from transport.log import Log
from transport.record import Checkpoint, Request

Told = Callable[[str], None]


def add(
    config: Config, name: str, signals: Signals, *, told: Told, seen: Callable[[Progress], None]
) -> None:
    """Bring up a target that has no place in the log yet: check, prepare, have its tables copied,
    and apply until it is level. Run again after a crash it goes on; a target that stands somewhere
    already is only made level.

    told: of each step as it begins. Raises Misconfigured with everything that is refused, Operator
    where nobody captures the source, and what catch_up raises.
    """
    source = target_config(config, name).source
    told("checking")
    refuse({name: check_all(config, [], [name])[name]})
    told("preparing")
    prepare_all(config, [], [name])
    with opened_target(config, name) as target, opened_log(config, source) as log:
        if target.checkpoint() is None and (span := log.span()) is not None:
            told("copying")
            start = _copied_from(log, source, name, span[1])
            place = Checkpoint.loads(start)
            target.begin(start, place.position or Position(""), place.batch)
    told("catching up")
    catch_up(config, name, signals, watch=False, within_s=5.0, seen=seen)


def _copied_from(log: Log, source: str, name: str, end: Offset) -> Offset:
    """Ask for a copy of every table for this target; the place in the log just before it begins."""
    number, before, heard_at = log.ask(Request(what="copy", for_target=name)), end, monotonic()
    for batch in log.read(end):
        if batch is not None:
            heard_at = monotonic()
            if upto(batch.progress) >= number:
                copy = asked_copies(batch.progress).get(str(number), {})
                if copy.get("state") in ("failed", "cancelled"):
                    raise Operator(
                        f"found the copy {number} {copy['state']}", hint=copy.get("why", "")
                    )
                return before
            before = batch.offset
        elif monotonic() - heard_at > TAKEN_WITHIN_S:
            break
    raise Operator(
        f"found nobody who captures {source}: request {number} waits in its log",
        hint=f"run: headwater capture {source}, then headwater child add {name} again",
    )


def make_exempt(
    config: Config,
    name: str,
    table: str,
    what: Exemption,
    keys: Sequence[str],
    *,
    timeout_s: float,
) -> int | None:
    """Say of these rows (wire keys) that they are excluded, pinned or neither; for what is to be
    here, have the source's rows copied, and give the batch that brings them.
    """
    with opened_target(config, name) as target:
        target.prepare([])
        target.exempt(table, what, [key.encode() for key in keys])
    if what == "excluded":
        return None
    return resync(
        config, target_config(config, name).source, name, {table: keys}, timeout_s=timeout_s
    )


def adopt_name(config: Config, name: str) -> None:
    """Let the target's database be the one that reads the log by its name (ops/readers.py)."""
    with opened_target(config, name) as target:
        target.prepare([])
        with opened_log(config, target_config(config, name).source) as log:
            adopt(log, target)


def described(config: Config, name: str, table: str) -> Table:
    """A table of the target's source; raises Misconfigured where it is not captured."""
    source = target_config(config, name).source
    with opened_source(config, source) as opened:
        tables = {t.full_name: t for t in opened.describe()}
    if table not in tables:
        raise Misconfigured(
            f"found no captured table {table} in {source}", hint=f"captured: {', '.join(tables)}"
        )
    return tables[table]


def exempt_rows(config: Config, name: str) -> Iterator[tuple[str, str, str]]:
    """Table, wire key, and what each exempt row is."""
    with opened_target(config, name) as target:
        for table, rows in sorted(target.exempted().items()):
            for key, what in sorted(rows.items()):
                yield table, key.decode(), what
