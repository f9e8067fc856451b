"""Dump tools that nobody here wrote, as a person runs them: dump, import, the position they note.

The recipes of docs/importing.md; each tool comes from a package registry (tests/services/install).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.services import install, postgres
from tests.services.database import Database

MARIADB_GTID = re.compile(r"gtid_slave_pos='([0-9,-]+)'")
MYSQL_GTIDS = re.compile(r"GTID_PURGED=(?:/\*!80000 )?'\+?'?(?:\*/ ')?([0-9a-f:,\n-]+)'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """One way from a source into an empty target; dump and load take a folder of their own.

    snapshot: it is given the one that headwater position holds. own: what reads the position that
    the tool itself noted, None where headwater position is used. expressions: it dumps columns
    whose default is an expression.
    """

    name: str
    kind: str
    dump: Callable[[Database, str | None, Path], None]
    load: Callable[[Database, Path], None]
    snapshot: bool = False
    own: Callable[[Path], str] | None = None
    expressions: bool = True


def run(words: Sequence[object], stdin: Any = subprocess.DEVNULL) -> None:
    done = subprocess.run(
        [str(word) for word in words], stdin=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words[0]} ended with {done.returncode}: {done.stderr}"


def login(database: Database) -> list[str]:
    server = database.server
    return [f"--host={server.host}", f"--port={server.port}", f"--user={server.user}",
            f"--password={server.password}"]  # fmt: skip


def pg_dump(source: Database, snapshot: str | None, folder: Path) -> None:
    flags = [] if snapshot is None else [f"--snapshot={snapshot}"]
    run([postgres.tool("pg_dump"), "--no-publications", *flags, "-f", folder / "shop.sql",
         "-d", source.url])  # fmt: skip


def psql(target: Database, folder: Path) -> None:
    run([postgres.tool("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", target.url,
         "-f", folder / "shop.sql"])  # fmt: skip


def mysqldump(*flags: str) -> Callable[[Database, str | None, Path], None]:
    def dump(source: Database, snapshot: str | None, folder: Path) -> None:
        tool = install.sid("mysql-client-core", "mysqldump")
        run([*tool, *login(source), "--single-transaction", *flags,
             f"--result-file={folder / 'shop.sql'}", source.name])  # fmt: skip

    return dump


def mysql(target: Database, folder: Path) -> None:
    with (folder / "shop.sql").open() as dump:
        run([*install.sid("mysql-client-core", "mysql"), *login(target), target.name], dump)


def mariadb_dump(*flags: str) -> Callable[[Database, str | None, Path], None]:
    def dump(source: Database, snapshot: str | None, folder: Path) -> None:
        tool = install.apt("mariadb-client", "mariadb-dump")
        # 10.11 dies (--gtid) where its binlog holds an event larger than a packet: other tests'.
        source.execute("flush binary logs")
        run([tool, *login(source), "--single-transaction", *flags,
             f"--result-file={folder / 'shop.sql'}", source.name])  # fmt: skip

    return dump


def mariadb(target: Database, folder: Path) -> None:
    with (folder / "shop.sql").open() as dump:
        run([install.apt("mariadb-client", "mariadb"), *login(target), target.name], dump)


def mydumper(source: Database, snapshot: str | None, folder: Path) -> None:
    run([*install.sid("mydumper", "mydumper"), *login(source), f"--database={source.name}",
         f"--outputdir={folder / 'shop'}", "--trx-consistency-only", "--threads=2"])  # fmt: skip


def myloader(target: Database, folder: Path) -> None:
    run([*install.sid("mydumper", "myloader"), *login(target), f"--database={target.name}",
         f"--directory={folder / 'shop'}", "--threads=2"])  # fmt: skip


def found(pattern: re.Pattern[str]) -> Callable[[Path], str]:
    def own(folder: Path) -> str:
        match = pattern.search((folder / "shop.sql").read_text())
        assert match is not None, "the dump notes no position"
        return match[1]

    return own


DUMPS = [
    Dump(name="pg_dump, snapshot", kind="postgres", dump=pg_dump, load=psql, snapshot=True),
    Dump(name="pg_dump", kind="postgres", dump=pg_dump, load=psql),
    Dump(name="mysqldump", kind="mysql", dump=mysqldump("--set-gtid-purged=OFF"), load=mysql),
    Dump(name="mysqldump, its own position", kind="mysql", load=mysql, own=found(MYSQL_GTIDS),
         dump=mysqldump("--source-data=2", "--set-gtid-purged=COMMENTED")),
    # 0.10 takes MySQL's DEFAULT_GENERATED for a generated column, and leaves it out.
    Dump(name="mydumper", kind="mysql", dump=mydumper, load=myloader, expressions=False),
    Dump(name="mariadb-dump", kind="mariadb", dump=mariadb_dump(), load=mariadb),
    Dump(name="mariadb-dump, its own position", kind="mariadb", load=mariadb,
         own=found(MARIADB_GTID), dump=mariadb_dump("--master-data=2", "--gtid")),
    Dump(name="mydumper from MariaDB", kind="mariadb", dump=mydumper, load=myloader),
]  # fmt: skip
