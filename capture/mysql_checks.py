"""Preflight of a MySQL or MariaDB source: what would lose data or stop the capture.

Each check is one query or one look at the catalog; nothing is changed.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from capture.mysql_catalog import CatalogTable
from schemas.errors import Misconfigured
from schemas.finding import Finding
from schemas.selection import Selection
from schemas.table import CompositeKey, ForeignKey

Cascades = Literal["refuse", "carry", "accept"]
"""What is done about foreign keys whose actions the binlog does not show."""

Query = Callable[[str], list[tuple[Any, ...]]]

_DAY_S = 86_400
_SETTINGS = (
    ("log_bin", ("ON", "1"), "start the server with --log-bin"),
    ("binlog_format", ("ROW",), "run: SET GLOBAL binlog_format = 'ROW'"),
    ("binlog_row_image", ("FULL",), "run: SET GLOBAL binlog_row_image = 'FULL'"),
    ("binlog_row_metadata", ("FULL",), "run: SET GLOBAL binlog_row_metadata = 'FULL'"),
    ("binlog_row_value_options", ("",), "run: SET GLOBAL binlog_row_value_options = ''"),
    (
        "binlog_transaction_compression",
        ("OFF", "0"),
        "run: SET GLOBAL binlog_transaction_compression = OFF",
    ),
    ("log_bin_compress", ("OFF", "0"), "run: SET GLOBAL log_bin_compress = OFF"),
    ("gtid_mode", ("ON", "OFF", "OFF_PERMISSIVE"), "run: SET GLOBAL gtid_mode = ON"),
)
EXPIRY = (
    "SHOW GLOBAL VARIABLES WHERE Variable_name LIKE 'binlog_expire%' "
    "OR Variable_name = 'expire_logs_days'"
)
_GRANTS = {
    "REPLICATION SLAVE": ("REPLICATION SLAVE", "REPLICATION REPLICA", "ALL PRIVILEGES", "SUPER"),
    "REPLICATION CLIENT": (*("REPLICATION CLIENT", "BINLOG MONITOR", "ALL PRIVILEGES", "SUPER"),),
    "SELECT": ("SELECT", "ALL PRIVILEGES"),
}


def check(
    query: Query,
    tables: Sequence[CatalogTable],
    selection: Selection,
    *,
    cascades: Cascades,
) -> list[Finding]:
    """Every finding, settings first."""
    settings = {
        str(name).lower(): str(value)
        for name, value in query(
            "SHOW GLOBAL VARIABLES WHERE Variable_name LIKE '%binlog%' "
            "OR Variable_name LIKE 'log_bin%' OR Variable_name IN "
            "('gtid_mode', 'expire_logs_days', 'version')"
        )
    }
    findings = [*_settings(settings), *_retention(settings), *_tags(query, settings)]
    findings += _grants(query)
    for table in tables:
        findings += _columns(table, selection)
        findings += _identity(table, selection)
        if cascades != "accept" and not _logs_cascades(settings):
            findings += _cascades(table, are_carried=cascades == "carry")
    return findings


def _settings(settings: dict[str, str]) -> Iterator[Finding]:
    for name, wanted, fix in _SETTINGS:
        if name in settings and settings[name].upper() not in wanted:
            yield Finding(where=name, problem=f"is {settings[name]}", fix=fix)
    if "binlog_row_metadata" not in settings:
        yield Finding(
            where="version",
            problem=f"{settings.get('version', 'this server')} does not log columns' names",
            fix="use MySQL 8.0 or later, or MariaDB 10.6 or later",
        )
    if settings.get("gtid_mode") in ("OFF", "OFF_PERMISSIVE"):
        yield Finding(
            where="gtid_mode",
            problem="is off: a position is a file and an offset of this one server",
            fix="run: SET GLOBAL gtid_mode = ON (step by step, see the server's manual)",
            refused=False,
        )


def expires_after_s(settings: dict[str, str]) -> float | None:
    """How long the server keeps a binlog, by its settings; None: until somebody purges it."""
    seconds = float(settings.get("binlog_expire_logs_seconds") or 0)
    seconds = seconds or float(settings.get("expire_logs_days") or 0) * _DAY_S
    automatic = settings.get("binlog_expire_logs_auto_purge", "ON").upper() in ("ON", "1")
    return seconds if seconds and automatic else None


def _retention(settings: dict[str, str]) -> Iterator[Finding]:
    seconds = expires_after_s(settings)
    if seconds is not None and seconds < _DAY_S:
        yield Finding(
            where="binlog_expire_logs_seconds",
            problem=f"keeps binlogs for {seconds:.0f} s: a capture that is down longer starts anew",
            fix="run: SET GLOBAL binlog_expire_logs_seconds = 259200",
            refused=False,
        )


def _tags(query: Query, settings: dict[str, str]) -> Iterator[Finding]:
    if settings.get("gtid_mode") == "ON":
        executed = str(query("SELECT @@global.gtid_executed")[0][0])
        parts = [p for part in executed.split(",") for p in part.split(":")[1:]]
        if any(not p.strip()[:1].isdigit() for p in parts):
            yield Finding(
                where="gtid_executed",
                problem="has tagged GTIDs, which are not supported yet",
                fix="use GTIDs without tags on this server",
            )


def _grants(query: Query) -> Iterator[Finding]:
    try:
        text = " ".join(str(row[0]).upper() for row in query("SHOW GRANTS"))
        roles = query("SELECT CURRENT_ROLE()")[0][0]
    except Misconfigured as error:
        yield Finding(where="grants", problem=str(error), fix=error.hint)
        return
    for needed, any_of in _GRANTS.items():
        if not any(one in text for one in any_of):
            yield Finding(
                where="grants",
                problem=f"the user has no {needed}",
                fix=f"run: GRANT {needed} ON *.* TO the capture's user",
                refused=roles in (None, "NONE", ""),  # a role's grants are not listed
            )


def _columns(table: CatalogTable, selection: Selection) -> Iterator[Finding]:
    for column in table.columns:
        wanted = selection.wants_column(table.schema, table.name, column.name)
        if column.kind is None and wanted and not column.generated:
            name = f"{table.full_name}.{column.name}"
            yield Finding(
                where=name,
                problem=f"is of type {column.native}, which is not carried yet",
                fix=f'exclude it: exclude_columns = ["{name}"]',
            )


def _identity(table: CatalogTable, selection: Selection) -> Iterator[Finding]:
    names = [c.name for c in table.columns]
    try:
        identity = selection.identity_of(table.schema, table.name, names, table.primary_key)
    except Misconfigured as error:
        yield Finding(where=table.full_name, problem=str(error), fix=error.hint)
        return
    by_name = {c.name: c for c in table.columns}
    for name in identity:
        where = f"{table.full_name}.{name}"
        if by_name[name].nullable:
            yield Finding(
                where=where,
                problem="identifies rows and may be NULL",
                fix=f"run: ALTER TABLE {table.full_name} MODIFY {name} "
                f"{by_name[name].native} NOT NULL",
            )
    if set(identity) not in [set(key) for key in (table.primary_key, *table.uniques)]:
        yield Finding(
            where=f"{table.full_name}.{', '.join(identity)}",
            problem="identifies rows and is not unique",
            fix=f"run: ALTER TABLE {table.full_name} ADD UNIQUE ({', '.join(identity)})",
        )
    if not table.primary_key and by_name[identity[0]].nullable:
        yield Finding(
            where=table.full_name,
            problem="has no primary key to copy it by",
            fix=f"add a primary key to {table.full_name}",
            refused=False,
        )


def _logs_cascades(settings: dict[str, str]) -> bool:
    """MySQL 9.6 carries foreign keys' actions out above the engine, and logs them."""
    version = settings.get("version", "")
    numbers = version.split("-")[0].split(".")
    if "mariadb" in version.lower() or len(numbers) < 2:
        return False
    return (int(numbers[0]), int(numbers[1])) >= (9, 6)


def _cascades(table: CatalogTable, *, are_carried: bool) -> Iterator[Finding]:
    """are_carried: targets do what single-column keys do on delete."""
    keys: list[ForeignKey | CompositeKey] = [*table.foreign_keys, *table.composite_keys]
    for key in keys:
        columns = (key.column,) if isinstance(key, ForeignKey) else key.columns
        hidden = [
            f"ON {event} {action}"
            for event, action in (("DELETE", key.on_delete), ("UPDATE", key.on_update))
            if action.upper() in ("CASCADE", "SET NULL", "SET DEFAULT")
            and not (are_carried and event == "DELETE" and isinstance(key, ForeignKey))
        ]
        if hidden:
            yield Finding(
                where=f"{table.full_name}.{', '.join(columns)}",
                problem=f"changes by {' and '.join(hidden)} of {key.parent}, which the binlog does "
                "not show",
                fix='let targets carry deletes: cascades = "carry"; or give the target\'s foreign '
                "key the same action and accept cascades, or make the source's ON DELETE RESTRICT "
                "ON UPDATE RESTRICT",
            )
