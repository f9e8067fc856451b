"""Workloads that nobody here wrote: pgbench and sysbench, with a sync_id added to their tables.

Invariant: each tool's process is ended however the test ends.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.services import install, postgres
from tests.services.database import Database

HERE = Path(__file__).parent
SCALE = 5
SYSBENCH_TABLES, SYSBENCH_ROWS = 3, 10_000

PGBENCH_TABLES = ("accounts", "branches", "tellers", "history")
PGBENCH_SUMS = {
    "pgbench_accounts": "count(*), sum(abalance), sum(bid), count(distinct sync_id)",
    "pgbench_branches": "count(*), sum(bbalance), sum(bid), count(distinct sync_id)",
    "pgbench_tellers": "count(*), sum(tbalance), sum(tid), count(distinct sync_id)",
    "pgbench_history": "count(*), sum(delta), sum(aid), count(distinct sync_id)",
}
SYSBENCH_SUMS = {
    f"sbtest{n}": "count(*), sum(k), sum(id), count(distinct sync_id)"
    for n in range(1, SYSBENCH_TABLES + 1)
}


@dataclass(slots=True)
class Tool:
    """A load generator on `database`; `sums` is SQL by table, the same on every server.

    size: of its tables, 1 for SCALE and SYSBENCH_ROWS.
    """

    database: Database
    name: str
    sums: dict[str, str]
    size: float = 1.0

    @property
    def scale(self) -> str:
        """Of pgbench: 100,000 accounts each."""
        return str(round(SCALE * self.size))

    @property
    def rows(self) -> int:
        """In each table of sysbench."""
        return round(SYSBENCH_ROWS * self.size)

    @property
    def any_row(self) -> str:
        """A condition that picks one row of the first table, once the tool has ended."""
        if self.name == "pgbench":
            return "sync_id = (select min(sync_id::text)::uuid from pgbench_accounts)"
        return f"id = {self.rows // 2}"

    def prepare(self) -> None:
        """Make and fill the tool's tables, then add the identity."""
        if self.name == "pgbench":
            self._run(self._pgbench("-i", "-s", self.scale, "-q"))
            for table in PGBENCH_TABLES:
                self.database.execute(
                    f"alter table pgbench_{table} add sync_id uuid not null unique"
                    " default gen_random_uuid()"
                )
            return
        self._run(self._sysbench("prepare"))
        for table in self.sums:
            self.database.execute(f"alter table {table} add sync_id char(36)")
            self.database.execute(f"update {table} set sync_id = uuid()")
            self.database.execute(
                f"alter table {table} modify sync_id char(36) not null default (uuid()),"
                " add unique (sync_id)"
            )

    def start(self, seconds: int) -> subprocess.Popen[bytes]:
        """Let it run for so long, at a rate that two processor cores can follow."""
        churn = HERE / "pgbench_churn.sql"
        words = (
            self._pgbench("-c", "2", "-R", "200", "-T", str(seconds), "-s", self.scale, "-n",
                          "--max-tries=20", "-b", "tpcb-like@9", "-f", f"{churn}@1")
            if self.name == "pgbench"
            else self._sysbench("run", "--threads=2", "--rate=40", f"--time={seconds}",
                                "--mysql-ignore-errors=1213,1020,1205,1062")
        )  # fmt: skip
        return subprocess.Popen(words, env=self._environment(), stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)  # fmt: skip

    def _run(self, words: Sequence[str]) -> None:
        done = subprocess.run(words, env=self._environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def _environment(self) -> dict[str, str]:
        return os.environ | {"PGPASSWORD": self.database.server.password}

    def _pgbench(self, *words: str) -> list[str]:
        server = self.database.server
        place = ["-h", server.host, "-p", str(server.port), "-U", server.user]
        return [str(postgres.tool("pgbench")), *place, *words, self.database.name]

    def _sysbench(self, command: str, *words: str) -> list[str]:
        url = urlsplit(self.database.url)
        return [
            install.apt("sysbench", "sysbench"),
            "oltp_read_write",
            f"--mysql-host={url.hostname}",
            f"--mysql-port={url.port}",
            f"--mysql-user={url.username}",
            f"--mysql-password={url.password}",
            f"--mysql-db={self.database.name}",
            f"--tables={SYSBENCH_TABLES}",
            f"--table-size={self.rows}",
            *words,
            command,
        ]


def tool_for(database: Database, size: float = 1.0) -> Tool:
    """The tool that knows that server."""
    if database.url.startswith("postgresql"):
        return Tool(database, "pgbench", PGBENCH_SUMS, size)
    return Tool(database, "sysbench", SYSBENCH_SUMS, size)
