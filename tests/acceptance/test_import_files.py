"""A copy of a source's files as the import: it is the source as it was when the copy ended.

docs/importing.md, "A copy of files": the position is noted first, and the beat is in the copy.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.test_docs_commands import writing
from tests.acceptance.test_import import said
from tests.acceptance.test_operator_errors import a_name, with_users
from tests.faults.pipeline import pipeline
from tests.services import install, mysql, postgres
from tests.services.database import Database, fresh
from tests.services.server import Server, unprivileged

Copy = Callable[[Server, Path, Path], Server]


def stopped_mysql(source: Server, original: Path, copy: Path) -> Server:
    """Stop the server, copy its folder, start both."""
    source.stop()
    copy.mkdir(mode=0o755)
    mysql.copy(original / "data", copy / "data", unprivileged())
    (copy / "data" / "auto.cnf").unlink()
    source.restart()
    return mysql.start(copy, ["--server-id=2"])


def base_backup(source: Server, original: Path, copy: Path) -> Server:
    """pg_basebackup of the running server; its slots do not come along."""
    copy.mkdir(mode=0o755)
    tool = install.postgres_distribution() / "pg_basebackup"
    subprocess.run([tool, "-d", source.url, "-D", copy / "data", "-c", "fast"], check=True)
    if account := unprivileged():
        subprocess.run(["chown", "-R", account, copy], check=True)
    return postgres.start(copy, wheel=False)


@contextmanager
def served(kind: str, folder: Path) -> Iterator[Server]:
    folder.mkdir(mode=0o755)
    if kind == "mysql":
        with mysql.start(folder) as server:
            yield server
    else:
        with postgres.start(folder, wheel=False) as server:
            yield server


@pytest.mark.parametrize(("kind", "make"), [("mysql", stopped_mysql), ("postgres", base_backup)])
def test_a_copy_of_files_is_an_import(
    kind: str, make: Copy, server_dir: Path, tmp_path: Path
) -> None:
    """H125: as new as the position, and equal after the catch-up."""
    with served(kind, server_dir / "original") as server, fresh(server) as source:
        with_users(source)
        target = Database(server=server, name=source.name)
        with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
            # One configuration with two servers: the copy has the same names.
            flow.target_settings["url"] = "sqlite:///unused.db"
            flow.configure(first_copy="identities")
            noted = said(flow.start("position", flow.name, "--no-hold", "--json"))
            source.execute("insert into users (name) values ('between')")
            if kind == "postgres":
                with writing(source, tmp_path / "never"):
                    copied = make(server, server_dir / "original", server_dir / "copy")
            else:
                copied = make(server, server_dir / "original", server_dir / "copy")
            with copied:
                source.execute("update users set name = 'later' where name = 'between'")
                flow.target_settings["url"] = copied.database_url(source.name)
                flow.configure()
                capture = flow.start("capture", flow.name, "--from", noted["position"])
                assert "as new as" in flow.run(
                    "import-check", "branch", "--from", noted["position"]
                )
                flow.run("prepare", "branch")
                flow.run("catch-up", "branch")
                assert "0 differences" in flow.run("verify", "branch", "--once")
                capture.alive()
                assert capture.stop() == 0
    shutil.rmtree(server_dir / "copy", ignore_errors=True)
