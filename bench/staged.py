"""The limit of any apply: rows by COPY or LOAD DATA LOCAL into a staging table, then set-wise.

Nothing is decoded, matched with a log or checkpointed: the server's own work, 10,000 changes a
transaction, into a table with the same primary key and unique index.
"""

from __future__ import annotations

import io
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from bench import changes, orders
from bench.measure import Clock, Sample
from tests.services import mysql, postgres

PER_TRANSACTION = 10_000
_COLUMNS = ", ".join(orders.NAMES)
_LOAD = (
    "load data local infile '{0}' into table staged character set utf8mb4"
    f" (op, {_COLUMNS})"
)  # fmt: skip
_COPY = f"copy staged (op, {_COLUMNS}) from stdin"
_INSERT = f"insert into orders ({_COLUMNS}) select {_COLUMNS} from staged where op = 'c'"
_ASSIGNED = {
    "postgres": ", ".join(f"{name} = s.{name}" for name in orders.NAMES[2:]),
    "mysql": ", ".join(f"o.{name} = s.{name}" for name in orders.NAMES[2:]),
}
STATEMENTS = {
    "postgres": (
        "delete from orders o using staged s where o.sync_id = s.sync_id and s.op = 'd'",
        f"update orders o set {_ASSIGNED['postgres']} from staged s"
        " where o.sync_id = s.sync_id and s.op = 'u'",
        _INSERT,
    ),
    "mysql": (
        "delete o from staged s join orders o on o.sync_id = s.sync_id where s.op = 'd'",
        f"update staged s join orders o on o.sync_id = s.sync_id set {_ASSIGNED['mysql']}"
        " where s.op = 'u'",
        _INSERT,
    ),
}
NAMES = {"postgres": "bare COPY and staged statement", "mysql": "bare LOAD DATA and staged"}
_STAGED = "create temporary table staged as select 'c' as op, orders.* from orders limit 0"


def phase(kind: str, url: str, name: str, rows: int) -> Sample:
    """Write one phase; making the text of the rows is not part of it."""
    driver: Any = postgres if kind == "postgres" else mysql
    clock = Clock()
    with (
        closing(driver.connect(url)) as connection,
        connection.cursor() as cursor,
        tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder,
    ):
        path = Path(folder) / "rows"
        for batch in changes.batches(name, rows, PER_TRANSACTION):
            text = "".join(f"{op}\t{orders.line(number, v)}" for op, number, v in batch)
            path.write_text(text)
            needed = {"duc".index(op) for op, _, _ in batch}
            with clock:
                cursor.execute("drop temporary table if exists staged" if kind == "mysql"
                               else "drop table if exists pg_temp.staged")  # fmt: skip
                cursor.execute(_STAGED)
                cursor.execute("begin")
                if kind == "mysql":
                    cursor.execute(_LOAD.format(path))
                else:
                    cursor.copy_expert(_COPY, io.StringIO(text), size=1 << 18)
                for number in sorted(needed):
                    cursor.execute(STATEMENTS[kind][number])
                cursor.execute("commit")
    return clock.sample(rows)
