"""Apply to a child whose table has exceptions: a condition, computed columns, renamed and own ones.

Beside it: the same apply of the same rows to a table without exceptions. Both sides are the apply
loop in a process of its own, from the embedded log's file to the last commit, inserts and then
updates; opening both and planning are left out (a beat is applied first). Every row meets the
condition: nothing is saved by leaving rows out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from apply.exceptions import TableExceptions
from apply.loop import apply
from apply.postgres import PostgresTarget
from apply.target import Placement
from bench import changes, orders
from bench.envelopes import piece
from bench.measure import Clock, Figure, Sample, by_turns, compared, isolated
from bench.servers import server
from bench.topics import Different
from tests.services.database import fresh
from tests.services.server import Server
from transport.sqlite import SqliteLog

ROWS = 200_000
PER_BATCH = 10_000
PHASES = ("insert", "update")
SOURCE = "bench"
WAYS = {
    "condition": TableExceptions(where="quantity >= 0"),
    "two columns": TableExceptions(where="quantity >= 0 and status in ('new', 'paid', 'packed',"
                                   " 'sent', 'returned')"),
    "constant": TableExceptions(set={"origin": "'shop'"}),
    "computed": TableExceptions(set={"label": "concat(upper(status), ':', note)"}),
    "renamed, own": TableExceptions(rename={"note": "remark"}, own=["status"]),
}  # fmt: skip
PLAIN = "the same without exceptions"


def apply_exceptions(rows: int) -> Iterator[Figure]:
    with ExitStack() as stack:
        at = stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-bench-"))
        path, running = Path(at) / "log.db", stack.enter_context(server("postgres"))
        ends = _write(path, rows)

        def side(way: str | None) -> Sequence[Sample]:
            return _side(way, path, ends, running, rows)

        for way in WAYS:
            found = list(by_turns(lambda _: side(way), lambda _: side(None)))  # noqa: B023 at once
            ours, theirs = found[: len(PHASES)], found[len(PHASES) :]
            for nth, phase in enumerate(PHASES):
                yield compared("apply-exceptions", f"{way}, {phase}", ours[nth], PLAIN, theirs[nth])


def _write(path: Path, rows: int) -> Sequence[int]:
    """A beat and the phases into a log; the number of the batch that ends each."""
    ends = []
    with closing(SqliteLog(path, SOURCE)) as log:
        stamp = log.open().stamp
        log.append(piece("postgres", stamp, [("c", orders.BEAT, 0)]))
        ends.append(1)
        for phase in PHASES:
            written = ends[-1]
            for batch in changes.batches(phase, rows, PER_BATCH):
                log.append(piece("postgres", stamp, batch))
                written += 1
            ends.append(written)
        log.flush()
        numbered = [batch.batch for batch in log.read(None, follow=False) if batch is not None]
    return [numbered[end - 1] for end in ends]


def _side(
    way: str | None, path: Path, ends: Sequence[int], running: Server, rows: int
) -> Sequence[Sample]:
    with fresh(running) as made:
        samples = isolated(_applied, way, made.url, path, ends, rows)
        ((count,),) = made.query(f"select count(*) from orders where id < {orders.BEAT}")
        if count != rows:
            raise Different(f"the target holds {count:,} of {rows:,} rows")
    return samples


def _applied(
    way: str | None, url: str, path: Path, ends: Sequence[int], rows: int
) -> Sequence[Sample]:
    """Apply phase after phase, each timed."""
    table = orders.table("postgres")
    exceptions = {table.full_name: WAYS[way]} if way is not None else {}
    placement = Placement(primary_keys="copy", exceptions=exceptions)
    samples = []
    with (
        closing(PostgresTarget("bench", url, SOURCE, placement)) as target,
        closing(SqliteLog(path, SOURCE)) as log,
    ):
        target.prepare([table])
        apply(log, target, follow=False, last=ends[0])
        for end in ends[1:]:
            clock = Clock()
            with clock:
                apply(log, target, follow=False, last=end)
            samples.append(clock.sample(rows))
    return samples
