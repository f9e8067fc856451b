"""The import rule of the five packages: who may know whom, and where drivers may appear."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "schemas": set[str](),
    "transport": {"schemas"},
    "capture": {"schemas", "transport"},
    "apply": {"schemas", "transport"},
    "ops": {"schemas", "transport", "capture", "apply"},
}
MYSQL = ("mysql", "mariadb", "binlog")
POSTGRES = ("postgres", "pgoutput", "libpq")
# A driver appears only in a file or folder named for its vendor or protocol.
DRIVERS = {
    "pymysqlreplication": MYSQL,
    "pymysql": MYSQL,
    "psycopg": POSTGRES,
    "psycopg2": POSTGRES,
    "confluent_kafka": ("kafka",),
    "kafka": ("kafka",),
    "redis": ("redis",),
    "headwater_native": ("native",),
}


def violations(path: str, source: str) -> list[str]:
    """What the module at `path` (relative to the checkout) imports and must not."""
    package = Path(path).parts[0]
    found = []
    for name in imported(source):
        if name in MAY_IMPORT and name != package and name not in MAY_IMPORT[package]:
            found.append(f"{path}: {package} may not import {name}")
        if name in DRIVERS and not any(word in path for word in DRIVERS[name]):
            found.append(f"{path}: {name} belongs in a file named for it")
    return found


def imported(source: str) -> set[str]:
    """The top-level names of every absolute import, those inside functions included."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_the_design_allows(package: str) -> None:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths, f"{package} has no modules: the rule would hold for nothing"
    found = [
        violation
        for path in paths
        for violation in violations(path.relative_to(ROOT).as_posix(), path.read_text())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("apply/loop.py", "import capture.loop"),
        ("capture/loop.py", "def late():\n    from apply import fold"),
        ("schemas/table.py", "from transport.log import Log"),
        ("transport/log.py", "import ops"),
        ("capture/loop.py", "import pymysql.cursors"),
        ("ops/status.py", "from psycopg2 import sql"),
        ("transport/log.py", "from confluent_kafka import Producer"),
    ],
)
def test_a_planted_violation_is_found(path: str, source: str) -> None:
    assert len(violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("apply/loop.py", "from transport.log import Log"),
        ("capture/mysql.py", "import pymysql, pymysqlreplication"),
        ("capture/pgoutput/libpq.py", "from psycopg import pq"),
        ("transport/kafka.py", "import confluent_kafka, kafka"),
        ("capture/loop.py", "from .source import Source"),
    ],
)
def test_what_the_design_allows_is_not_reported(path: str, source: str) -> None:
    assert violations(path, source) == []
