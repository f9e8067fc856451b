"""What stands beside the MySQL and MariaDB figures: other ways to do the same work."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import WriteRowsEvent

from bench import orders
from bench.measure import Clock, Sample
from capture.mysql_connection import settings
from tests.services import mysql

SERVER_ID = 4_000_000_001


def place(url: str) -> tuple[str, int]:
    """File and offset of the binlog's end."""
    with closing(mysql.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("select version()")
        is_mariadb = "mariadb" in cursor.fetchone()[0].lower()
        cursor.execute("show master status" if is_mariadb else "show binary log status")
        file, offset = cursor.fetchone()[:2]
        return str(file), int(offset)


def mysql_replication(url: str, schema: str, after: tuple[str, int], rows: int) -> Sample:
    """python-mysql-replication, read for its rows."""
    clock, seen = Clock(), 0
    with clock:
        reader: Any = BinLogStreamReader(
            settings(url),
            SERVER_ID,
            blocking=True,
            resume_stream=True,
            log_file=after[0],
            log_pos=after[1],
            only_events=[WriteRowsEvent],
            only_schemas=[schema],
            enable_logging=False,
        )
        for event in reader:
            seen += len(event.rows)
            if seen >= rows:
                break
    sample = clock.sample(rows)
    reader.close()
    return sample


def load_data(url: str, rows: int, per_batch: int) -> list[Sample]:
    """LOAD DATA LOCAL into a table that is `orders` without an index, a transaction a batch."""
    clock = Clock()
    with (
        closing(mysql.connect(url)) as connection,
        connection.cursor() as cursor,
        tempfile.TemporaryDirectory() as folder,
    ):
        cursor.execute("create table plain as select * from orders limit 0")
        path = Path(folder) / "rows"
        columns = ", ".join(orders.NAMES)
        for part in orders.parts(0, rows, per_batch):
            path.write_text(orders.lines(part))
            with clock:
                cursor.execute(
                    f"load data local infile '{path}' into table plain"
                    f" character set utf8mb4 ({columns})"
                )
    return [clock.sample(rows)]
