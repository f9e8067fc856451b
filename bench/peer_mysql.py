"""What stands beside the MySQL and MariaDB figures: other ways to do the same work."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import WriteRowsEvent

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
