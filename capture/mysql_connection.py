"""Connections to MySQL and MariaDB: from a URL, with driver errors as ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
from sqlalchemy.engine import make_url

from schemas.errors import Misconfigured, SourceLost, Transient

_CONNECTION = {1040, 1042, 1043, 1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1203}
_LOST = {2002, 2003, 2005, 2006, 2013, 2014, 2055, 0}
_LOCKED = {1205, 1213}
_MEANWHILE = {1054, 1146, 1317, 1412, 1969, 3024}
"""A table altered or a query ended by others: what comes next reads the catalog anew."""
_DENIED = {1044, 1045, 1049, 1130, 1142, 1143, 1227, 1251, 1698, 1820, 1862, 3118, 3159, 3955}
_READ_ONLY = {1290, 1792, 1836}
_REFUSED = _DENIED | _READ_ONLY
_OPTIONS = {
    *("ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password", "unix_socket"),
    *("ssl_disabled", "ssl_verify_cert", "ssl_verify_identity", "connect_timeout"),
}
_WRITE_TIMEOUT_S = 86_400


def settings(url: str) -> dict[str, Any]:
    """Arguments for the driver; raises Misconfigured for an option that is not one."""
    parts = make_url(url)
    options: dict[str, Any] = {}
    for name, value in parts.query.items():
        if name not in _OPTIONS or not isinstance(value, str):
            raise Misconfigured(
                f"found the option {name} in a source's URL",
                hint=f"the options are {', '.join(sorted(_OPTIONS))}",
            )
        is_flag = value.lower() in ("true", "false")
        options[name] = (
            value.lower() == "true" if is_flag else int(value) if value.isdigit() else value
        )
    return {
        "host": parts.host or "127.0.0.1",
        "port": parts.port or 3306,
        "user": parts.username or "",
        "password": parts.password or "",
        "charset": "utf8mb4",
        **options,
    }


def dump_settings(url: str) -> dict[str, Any]:
    """Arguments for a dump connection.

    A replica that can do checksums gets them whenever the server has them on, also when that
    changes later; a stalled reader is back-pressure for a day, not the server's minute.
    """
    return {
        **settings(url),
        "init_command": "SET @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32',"
        f" SESSION net_write_timeout = {_WRITE_TIMEOUT_S}",
    }


def connect(url: str, **more: Any) -> Any:
    """An autocommit connection in UTC; raises Transient or Misconfigured."""
    with translated("connect to the source"):
        return pymysql.connect(
            **settings(url),
            autocommit=True,
            init_command="SET time_zone = '+00:00', SESSION sql_mode = ''",
            **more,
        )


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn the driver's errors into ours; what is unknown stays as it is."""
    try:
        yield
    except pymysql.err.MySQLError as error:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else -1
        ours = explained(number, str(error.args[-1]) if error.args else "", doing)
        if ours is None:
            raise
        raise ours from error
    except (OSError, EOFError) as error:
        raise Transient(f"could not {doing}: the connection was lost") from error


def explained(
    number: int, message: str, doing: str
) -> Transient | Misconfigured | SourceLost | None:
    """Our error for a server's error number; None for one that we do not know."""
    if number in _CONNECTION | _LOST | _LOCKED | _MEANWHILE:
        return Transient(f"could not {doing} ({number}: {message})")
    if number in _REFUSED:
        return Misconfigured(
            f"was refused to {doing} ({number}: {message})",
            hint="check user, password and grants; a capture needs "
            "SELECT, REPLICATION SLAVE and REPLICATION CLIENT",
        )
    if number in (1236, 4052):  # 4052: MariaDB's own for the same id
        if "same server_uuid/server_id" in message or "server-id" in message:
            return displaced()
        return SourceLost(
            f"was denied the binlog from our position ({message})",
            hint="copy the tables anew, or start at a position that the server still has",
        )
    return None


def displaced() -> Misconfigured:
    """Another replica took our server id: asking again would only displace that one."""
    return Misconfigured(
        "lost the binlog to another client with the same server id",
        hint="give each capture and replica of this server its own server_id",
    )


def is_displaced(cursor: Any, server_id: int, reported: str) -> bool:
    """Whether a replica that is not `reported` has registered under our server id.

    A server that displaces a dump often closes its connection before it has said why. False also
    where we may not look (MariaDB wants REPLICATION MASTER ADMIN).
    """
    try:
        try:
            cursor.execute("SHOW REPLICAS")
        except pymysql.err.ProgrammingError:
            cursor.execute("SHOW SLAVE HOSTS")  # MariaDB, and MySQL before 8.0.22
    except pymysql.err.OperationalError as error:
        if error.args[0] in _DENIED:
            return False
        raise
    return any(row[0] == server_id and row[1] != reported for row in cursor.fetchall())


def log_end(cursor: Any) -> tuple[str, int]:
    """The binlog's newest file, and its size."""
    try:
        cursor.execute("SHOW BINARY LOG STATUS")  # MySQL 8.2 and later
    except pymysql.err.ProgrammingError:
        cursor.execute("SHOW MASTER STATUS")
    row = cursor.fetchone()
    if row is None:
        raise Misconfigured("found the binlog switched off", hint="start the server with --log-bin")
    return row[0], int(row[1])
