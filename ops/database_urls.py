"""What a database's URL means: whose server it is, and which database."""

import os
from collections.abc import Mapping

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

FAMILIES = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}
"""URL schemes, and the adapter that each is served by (MariaDB is detected by the MySQL one)."""
TARGET_FAMILIES = FAMILIES | {"sqlite": "sqlite"}

Place = tuple[str, int, str]
_PORTS = {"postgres": 5432, "mysql": 3306}


def family_of(url: str, families: Mapping[str, str] = FAMILIES) -> str:
    """Give one of the families; raises ValueError, without the URL in it, where it is of none."""
    try:
        scheme = make_url(url).get_backend_name()
    except ArgumentError as error:
        raise ValueError(
            "url must be like postgresql://user:${PASSWORD}@host:5432/database"
        ) from error
    if scheme not in families:
        *most, last = (f"{known}://" for known in families)
        raise ValueError(f"url must begin with {', '.join(most)} or {last}")
    return families[scheme]


def place_of(url: str) -> Place:
    """Which database a URL means: host, port, name; its account and options left aside."""
    parts, family = make_url(url), family_of(url, TARGET_FAMILIES)
    if family == "sqlite":
        return "", 0, os.path.realpath(parts.database or "")
    host = (parts.host or "localhost").lower()
    host = "localhost" if host in ("127.0.0.1", "::1") else host
    return host, parts.port or _PORTS[family], parts.database or ""


def refuse_twice(targets: Mapping[str, tuple[str, str]]) -> None:
    """A checkpoint is kept in the target's database, by source: two would move the same one.
    targets: (source, url) by name. Raises ValueError.
    """
    names: dict[tuple[str, Place], str] = {}
    for name, (source, url) in targets.items():
        other = names.setdefault((source, place_of(url)), name)
        if other != name:
            raise ValueError(
                f"targets.{other} and targets.{name} bring source {source} into one database, "
                "where both would move the same checkpoint: make them one section that maps its "
                "tables with schemas or tables, or give each its own database"
            )
