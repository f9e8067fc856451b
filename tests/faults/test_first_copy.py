"""A first copy that is killed again and again goes on at its chunk, while rows change."""

import os
import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from ops.compose import opened_log
from ops.prepare import prepare_all
from schemas.change import Piece
from schemas.faults import POINTS
from tests.faults.pipeline import Pipeline, pipeline, until
from tests.faults.replica import replica
from tests.faults.test_crashes import settle
from tests.faults.workload import Workload, create, watch
from tests.services.database import Database
from tests.services.server import Server

ROWS = 400
INTERRUPTIONS = 20
CALM = ("hot", "cold", "insert", "pet")
"""No row comes back or moves to another chunk: then each is copied at most once."""


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ("postgres", "calm"),
        pytest.param("mysql", "calm", marks=pytest.mark.full),
        pytest.param("mariadb", "calm", marks=pytest.mark.full),
        pytest.param("postgres", "all", marks=pytest.mark.full),
        ("mysql", "all"),
        pytest.param("mariadb", "all", marks=pytest.mark.full),
    ],
)
def test_a_first_copy_killed_twenty_times_resumes_at_its_chunk(
    source: str,
    kinds: str,
    request: pytest.FixtureRequest,
    postgres: Server,
    new_database: Callable[[Server], Database],
    kafka_prefix: str,
    tmp_path: Path,
) -> None:
    """T63; with all kinds of changes also T61: rows move between chunks."""
    seed = int(os.environ.get("HEADWATER_SEED") or secrets.randbits(32))
    print(f"HEADWATER_SEED={seed}")
    origin, target = new_database(request.getfixturevalue(source)), new_database(postgres)
    create(origin)
    workload = Workload(origin, Random(seed))
    workload.fill(ROWS)
    workload.copying = True
    with pipeline(tmp_path, kafka_prefix, origin, {"mirror": target}, "sqlite") as flow:
        flow.configure(batch_rows=5, chunk_rows=7)
        prepare_all(flow.config, [kafka_prefix], ["mirror"])
        watch(target)
        for _ in range(INTERRUPTIONS):
            interrupt(flow, workload, calm=kinds == "calm")
        settle(flow, workload, target, [flow.capture(), flow.apply("mirror")])
        if kinds == "calm":
            assert_copied_once(flow)
    workload.close()


def interrupt(flow: Pipeline, workload: Workload, *, calm: bool) -> None:
    """Start the capture, and let it die at a random place while the source is written to."""
    captures = [point for point in POINTS if "target" not in point]
    fault = f"{workload.random.choice(captures)}:{workload.random.randint(1, 12)}"
    victim = flow.capture(fault=fault)

    def died() -> bool:
        if calm:
            workload.step(only=CALM)
        else:
            workload.step()
        return victim.code is not None

    until(died, f"a death at {fault}")
    assert victim.code == -9, f"{fault}: ended with {victim.code}:\n{victim.said}"


def assert_copied_once(flow: Pipeline) -> None:
    """No row was copied by two chunks, and every row that was there before was copied by one."""
    copied: Counter[tuple[str, bytes]] = Counter()
    with opened_log(flow.config, flow.name) as log:
        for batch in log.read(None, follow=False):
            for block in batch.blocks() if batch else ():
                for rows in block:
                    copied.update(
                        (rows.table.name, key)
                        for key, op in zip(rows.keys, rows.ops, strict=True)
                        if op == "r"
                    )
    assert set(copied.values()) == {1}
    assert {table for table, _ in copied} >= {"people", "pets"}


def test_a_reference_that_moves_to_a_row_not_copied_yet_waits_for_it(
    postgres: Server, new_database: Callable[[Server], Database]
) -> None:
    """A pet is inserted with an owner who is copied, then given to one whose chunk is to come."""
    source = new_database(postgres)
    create(source)
    source.execute(
        "insert into people (sync_id, version)"
        " select gen_random_uuid(), n from generate_series(1, 30) n"
    )
    # PostgreSQL's chunks follow the identity.
    first, last = (f"(select id from people order by sync_id {o} limit 1)" for o in ("", "desc"))
    moves = [
        f"insert into pets (sync_id, owner, version) values (gen_random_uuid(), {first}, 1)",
        f"update pets set owner = {last}, version = 2",
    ]

    def move(piece: Piece) -> None:
        if moves and any(rows.table.name == "people" for rows in piece.rows):
            source.execute(moves.pop(0))

    with replica(source.name, source, new_database(postgres)) as flow:
        flow.capture(move)
        flow.apply()
        assert flow.verify().verdict == "valid"
