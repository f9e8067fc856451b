"""First matching: as many rows on one side as on the other, by a natural key, other primary keys.

Beside it: a join by the same key of the same two tables where one PostgreSQL server has both, each
key on exactly one row of either: what no matching of two servers can beat. Ours reads every column,
counts what differs, and writes nothing (`headwater enrol` without --apply).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import tomlkit

from bench.measure import REPETITIONS, Clock, Figure, Sample, compared, isolated
from bench.servers import database
from ops.config_file import load
from ops.enrol.run import enrol as run
from tests.faults.pipeline import schema_of, user_url
from tests.services import postgres
from tests.services.database import Database

ROWS = 1_000_000
COLUMNS = "id bigint primary key, email varchar(80), name varchar(60), born date, city varchar(40)"


def enrol(rows: int) -> Iterator[Figure]:
    with database("postgres") as branch, database("postgres") as shop, database("mysql") as older:
        _fill_postgres(branch, "users", rows, first=rows + 1, key="'  E' || n || '@X.org'")
        _fill_postgres(shop, "users", rows, first=1, key="'e' || n || '@x.org'")
        _fill_mysql(older, rows)
        _fill_postgres(branch, "theirs", rows, first=1, key="'e' || n || '@x.org'")
        sides = {"PostgreSQL": shop, "MySQL": older}
        ours: dict[str, list[Sample]] = {name: [] for name in sides}
        joins: list[Sample] = []
        for _ in range(REPETITIONS):
            for name, source in sides.items():
                with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
                    path = _configured(Path(folder), source, branch)
                    ours[name].append(isolated(_enrolled, str(path), rows))
            joins.append(isolated(_joined, branch.url, rows))
    for name, samples in ours.items():
        of = f"{name} to PostgreSQL"
        yield compared("enrol", of, samples, "join in one server", joins)
        seconds, peaks = [s.wall_s for s in samples], [s.peak_mb for s in samples]
        yield Figure(bench="enrol", what=f"{of}, all rows", unit="s", values=seconds, less=True)
        yield Figure(bench="enrol", what=f"{of}, all rows", unit="MB", values=peaks, less=True)


def _configured(folder: Path, source: Database, target: Database) -> Path:
    at = f"{schema_of(source)}.users"
    match = {at: {"keys": [["email"]], "normalise": {"email": ["trim", "lower", "nfc"]}}}
    document = {
        "sources": {"shop": {"url": user_url(source), "include": [at]}},
        "targets": {
            "branch": {
                "url": target.url,
                "source": "shop",
                "schemas": {schema_of(source): "public"},
                "match": match,
            }
        },
    }
    path = folder / "headwater.toml"
    path.write_text(tomlkit.dumps(document))
    return path


def _enrolled(path: str, rows: int) -> Sample:
    clock = Clock()
    config = load(Path(path)).config
    with clock:
        report = run(config, "shop", "branch")
    (found,) = report.tables
    assert (found.matched, found.differing) == (rows, rows), "every e-mail differs, none is alone"
    return clock.sample(rows)


def _joined(url: str, rows: int) -> Sample:
    clock = Clock()
    key = "lower(btrim(normalize(email, NFC)))"
    once = f"select {key} as key, min(id) as id from {{}} group by 1 having count(*) = 1"
    with closing(postgres.connect(url)) as connection, connection.cursor() as cursor, clock:
        cursor.execute("drop table if exists pairs")
        cursor.execute(
            f"create table pairs as select s.id as s, t.id as t from ({once.format('theirs')}) s "
            f"join ({once.format('users')}) t using (key)"
        )
        assert cursor.rowcount == rows
    return clock.sample(rows)


def _fill_postgres(into: Database, table: str, rows: int, *, first: int, key: str) -> None:
    into.execute(f"create table {table} ({COLUMNS})")
    into.execute(
        f"insert into {table} select {first} + (n * 7919::bigint) % {rows}, {key}, 'Name ' || n, "
        f"date '1950-01-01' + n % 20000, 'City ' || n % 1000 from generate_series(1, {rows}) n"
    )
    into.execute(f"vacuum analyze {table}")


def _fill_mysql(into: Database, rows: int) -> None:
    into.execute(f"create table users ({COLUMNS})")
    digits = "select 0 d union all select 1 union all select 2 union all select 3 union all select "
    digits += "4 union all select 5 union all select 6 union all select 7 union all select 8 union "
    digits += "all select 9"
    places = len(str(rows - 1))
    number = " + ".join(f"{10**i} * d{i}.d" for i in range(places))
    joined = ", ".join(f"({digits}) d{i}" for i in range(places))
    into.execute(
        f"insert into users select n, concat('e', n, '@x.org'), concat('Name ', n), "
        f"date_add('1950-01-01', interval n % 20000 day), concat('City ', n % 1000) "
        f"from (select 1 + {number} as n from {joined}) numbers where n <= {rows}"
    )
