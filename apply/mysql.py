"""MySQL and MariaDB as targets: LOAD DATA LOCAL into temporary tables, judged by its warnings.

LOAD DATA LOCAL implies IGNORE, in strict mode too: what is too long or out of range becomes a
warning. So any warning refuses the row it names, and the row count must be exact. Not here: any
statement that moves rows.
"""

from collections.abc import Container, Iterator, Sequence
from typing import Any

import pymysql
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from apply import ddl, fields, mysql_errors, read_back
from apply.database import DatabaseTarget
from apply.fields import Fields, Lines
from apply.mysql_from_text import from_text
from apply.mysql_stream import StreamConnection, undecoded
from apply.server import Cause, Unstorable
from apply.target import Placement
from schemas import mysql_checksum, mysql_text
from schemas.errors import Misconfigured
from schemas.kinds import Kind
from schemas.table import Column

LOCK_TIMEOUT_S = 10
"""So long another transaction may hold a row we need; on the checkpoint row it means another
applier.
"""

SQL_MODE = "STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION"

# READ COMMITTED takes no gap locks, so that streams do not wait for each other.
SESSION = (
    f"SET SESSION sql_mode = '{SQL_MODE}', time_zone = '+00:00', sql_notes = 1, "
    "foreign_key_checks = 1, unique_checks = 1, sql_safe_updates = 0, sql_select_limit = DEFAULT, "
    f"sql_auto_is_null = 0, innodb_lock_wait_timeout = {LOCK_TIMEOUT_S}, "
    "wait_timeout = 31536000, net_write_timeout = 3600, net_read_timeout = 3600",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
)

SMALL = 500


class MySQLTarget(DatabaseTarget):
    """One MySQL or MariaDB server, with a database of its own in the url, as a target."""

    def __init__(self, name: str, url: str, source_name: str, placement: Placement) -> None:
        if not sa.make_url(url).database:
            raise Misconfigured(
                f"found no database in the url of target {name}",
                hint="end the url with the database: mysql://user:password@host:3306/shop",
            )
        super().__init__(name, MySQLServer(url), source_name, placement)


class MySQLServer:
    """Implements apply.server.Server for both; which one it is, is read when it is first needed."""

    is_mysql, is_sqlite = True, False

    def __init__(self, url: str) -> None:
        self._url = sa.make_url(url).set(drivername="mysql+pymysql")
        self.engine = sa.create_engine(
            self._url, poolclass=sa.pool.NullPool, creator=lambda: self._connect()
        )
        self._is_mariadb: bool | None = None
        self._takes_streams = True

    def _connect(self, **options: Any) -> StreamConnection:
        url = self._url
        connection = StreamConnection(
            host=url.host or "127.0.0.1",
            port=url.port or 3306,
            user=url.username,
            password=str(url.password or ""),
            database=url.database,
            charset="utf8mb4",
            # The compare-and-set counts rows found, not rows changed.
            client_flag=pymysql.constants.CLIENT.FOUND_ROWS,
            local_infile=True,
            ssl=_ssl(url.query),
            **options,
        )
        with connection.cursor() as cursor:
            for statement in SESSION:
                cursor.execute(statement)
            cursor.execute("SELECT @@local_infile, version(), @@binlog_format")
            streams, version, binlog_format = cursor.fetchone() or (0, "", "")
            self._takes_streams = bool(int(streams))
            self._is_mariadb = "mariadb" in _str(version).lower()
            if _str(binlog_format) == "STATEMENT":
                cursor.execute("SET SESSION binlog_format = 'ROW'")
        connection.commit()
        return connection

    @property
    def is_mariadb(self) -> bool:
        """Whether the server is MariaDB."""
        if self._is_mariadb is None:
            self._connect().close()
        return bool(self._is_mariadb)

    def column_type(self, column: Column, family: str, *, key: bool) -> str:
        return ddl.mysql_type(column, family, key, mariadb=self.is_mariadb)

    def own_key(self, column: Column) -> tuple[str, str] | None:
        if column.kind.name == "int":
            return "bigint", "AUTO_INCREMENT"
        if column.kind.name == "uuid" and self.is_mariadb:
            return "uuid", "DEFAULT uuid()"
        if column.kind.name == "uuid":
            return "char(36) character set ascii collate ascii_bin", "DEFAULT (uuid())"
        return None

    def generates(self, column: sa.Column[Any]) -> bool:
        return bool(column.server_default or column.computed or column.autoincrement is True)

    def complete(self, connection: sa.Connection, table: sa.Table) -> None:
        """Reflection leaves out what equals the table's default: staging tables need every
        collation.
        """
        found = connection.execute(
            sa.text(
                "SELECT column_name, character_set_name, collation_name FROM "
                "information_schema.columns WHERE table_schema = :schema AND table_name = :name "
                "AND collation_name IS NOT NULL"
            ),
            {"schema": table.schema, "name": table.name},
        )
        by_name = {c.name: c for c in table.c}
        for name, charset, collation in found:
            kind: Any = by_name[name].type
            if isinstance(kind, sa.String):
                kind.charset, kind.collation = charset, collation  # type: ignore[attr-defined]

    def fields(self, kind: Kind, family: str) -> Fields:
        if (uuid := fields.of_uuid(kind, family)) is not None:
            return uuid
        if kind.name == "binary":
            return fields.hexadecimal
        if kind.name == "bool":
            return fields.flag
        if kind.name == "json":
            return fields.json_in_doubles if family == "json" else fields.text
        if kind.name == "timestamp" and family != "text":
            return fields.without_zone
        if kind.name == "float":
            if self.is_mariadb and family == "float":
                # It takes -0 for 0 without a word.
                short, long = fields.single_but_negative_zero, fields.double_but_negative_zero
                return short if kind.bits == 32 else long
            return fields.single if kind.bits == 32 else fields.plain
        return fields.text if kind.name in ("text", "enum") else fields.plain

    def exactly(self, column: Any, other: Any) -> sa.ColumnElement[bool]:
        equal: sa.ColumnElement[bool] = column == other
        if isinstance(column.type, sa.String):
            # The plain comparison finds the row by its index; this one refuses what only a
            # collation takes for the same (case, accents, trailing blanks).
            return equal & (sa.cast(column, mysql.BINARY) == sa.cast(other, mysql.BINARY))
        return equal

    def from_text(self, text: Any, like: sa.Column[Any], kind: Kind | None = None) -> Any:
        return from_text(text, like, kind)

    def make(self, connection: sa.Connection, table: sa.Table) -> None:
        connection.execute(CreateTable(table))

    def clear(self, connection: sa.Connection, table: sa.Table, rows: int) -> None:
        # TRUNCATE would end the transaction; DROP and CREATE TEMPORARY do not.
        if rows < SMALL:
            connection.exec_driver_sql(f"DELETE FROM {table.name}")
            return
        connection.exec_driver_sql(f"DROP TEMPORARY TABLE {table.name}")
        self.make(connection, table)

    def analyze(self, connection: sa.Connection, table: sa.Table) -> None:
        """InnoDB counts by itself; ANALYZE TABLE would end the transaction."""

    def stage(self, connection: sa.Connection, table: sa.Table, lines: Lines) -> int:
        try:
            self._put(connection, table, lines)
        except pymysql.Error as error:
            if not mysql_errors.is_of_row(error):
                raise sa.exc.DBAPIError.instance(
                    table.name, None, error, pymysql.Error, dialect=self.engine.dialect
                ) from error
            row = mysql_errors.row(mysql_errors.message(error))
            if row is None:
                # Invalid JSON is refused without saying where.
                row = self._first_bad(connection, table, lines)
            raise Unstorable(row, mysql_errors.column(mysql_errors.message(error))) from error
        return lines.rows

    def _first_bad(self, connection: sa.Connection, table: sa.Table, lines: Lines) -> int:
        low, high = 0, lines.rows - 1
        while low < high:
            middle = (low + high) // 2
            savepoint = connection.begin_nested()
            try:
                self._put(connection, table, lines.part(low, middle + 1))
                low = middle + 1
            except (pymysql.Error, Unstorable):
                high = middle
            savepoint.rollback()
        return low

    def _put(self, connection: sa.Connection, table: sa.Table, lines: Lines) -> None:
        quote = self.engine.dialect.identifier_preparer
        binary = [isinstance(table.c[n].type, _BINARY) for n in lines.names]
        put = self._load if self._takes_streams else self._insert
        names = [quote.quote(table.c[n].name) for n in lines.names]
        put(connection, quote.format_table(table), names, binary, lines)

    def _load(
        self,
        connection: sa.Connection,
        into: str,
        names: list[str],
        binary: list[bool],
        lines: Lines,
    ) -> None:
        raw: Any = connection.connection.driver_connection
        inputs = [f"@hw{i}" if b else n for i, (n, b) in enumerate(zip(names, binary, strict=True))]
        sets = [f"{n} = UNHEX(@hw{i})" for i, n in enumerate(names) if binary[i]]
        sql = (
            f"LOAD DATA LOCAL INFILE 'headwater' INTO TABLE {into} CHARACTER SET utf8mb4 "
            f"({', '.join(inputs)})" + (f" SET {', '.join(sets)}" if sets else "")
        )
        raw.outgoing = lines.data
        with raw.cursor() as cursor:
            # Without arguments PyMySQL formats nothing: percent signs must not be doubled.
            count = cursor.execute(sql.replace("%%", "%"))
            warned = cursor.warning_count
        self._judge(raw, 0, count, lines.rows, warned)

    def _insert(
        self,
        connection: sa.Connection,
        into: str,
        names: list[str],
        binary: list[bool],
        lines: Lines,
    ) -> None:
        raw: Any = connection.connection.driver_connection
        one = "(" + ", ".join("UNHEX(%s)" if b else "%s" for b in binary) + ")"
        rows = lines.values()
        for at in range(0, len(rows), SMALL):
            some = rows[at : at + SMALL]
            sql = f"INSERT INTO {into} ({', '.join(names)}) VALUES {', '.join([one] * len(some))}"
            with raw.cursor() as cursor:
                try:
                    count = cursor.execute(sql, [v for row in some for v in row])
                except pymysql.Error as error:
                    row = mysql_errors.row(mysql_errors.message(error))
                    if row is None or not mysql_errors.is_of_row(error):
                        raise
                    raise Unstorable(
                        at + row, mysql_errors.column(mysql_errors.message(error))
                    ) from error
                warned = cursor.warning_count
            self._judge(raw, at, count, len(some), warned)

    def _judge(self, raw: Any, at: int, count: int, expected: int, warned: int) -> None:
        """Every warning is a value that was changed; fewer rows are rows that were skipped."""
        if not warned and count == expected:
            return
        with raw.cursor() as cursor:
            cursor.execute("SHOW WARNINGS")
            found = [str(message) for _, _, message in cursor.fetchall()]
        places = [(row, w) for w in found if (row := mysql_errors.row(w)) is not None]
        if places:
            row, message = min(places)
            raise Unstorable(at + row, mysql_errors.column(message))
        raise Unstorable(at, None)

    def advance(self, connection: sa.Connection, table: sa.Table, written: Container[str]) -> None:
        """AUTO_INCREMENT follows the keys that are written."""

    def hold(self, connection: sa.Connection, source: str) -> bool:
        # Names are of the whole server, and have at most 64 characters.
        name = sa.func.sha2(sa.func.concat_ws(" ", "headwater", sa.func.database(), source), 224)
        try:
            return bool(connection.scalar(sa.select(sa.func.get_lock(name, 0))))
        except sa.exc.DBAPIError as error:
            if self.cause(error) is Cause.LOST:
                raise
            return True  # a cluster may refuse such locks (Percona's pxc_strict_mode)

    def check_at_once(self, connection: sa.Connection) -> None:
        pass  # every constraint is immediate

    def cause(self, error: sa.exc.DBAPIError) -> Cause:
        return mysql_errors.cause(error)

    def explain(self, error: sa.exc.DBAPIError) -> str:
        code = mysql_errors.code(error.orig)
        return f"server error {code}" if code else "the connection failed or was ended"

    def warnings(self, connection: sa.Connection) -> list[tuple[str, str, str]]:
        if self._takes_streams:
            return []
        return [
            (
                "local_infile",
                "is off, so rows are staged by INSERT, which takes about three times as long",
                "SET GLOBAL local_infile = 1",
            )
        ]

    def read(
        self,
        columns: Sequence[tuple[Kind, str, Any]],
        statement: sa.Select[Any],
        limit: int,
        *,
        connection: sa.Connection | None = None,
    ) -> Iterator[list[list[str | None]]]:
        dialect = self.engine.dialect
        printed = [
            sa.literal_column(mysql_text.expression(kind, self._name(column)), sa.String)
            if isinstance(column, sa.Column)
            else column
            for kind, _, column in columns
        ]
        text = statement.with_only_columns(*printed, maintain_column_froms=True)
        sql = str(text.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
        make = [
            _whole if kind.name == "int" and family == "decimal" else mysql_text.fragment(kind)
            for kind, family, _ in columns
        ]
        if connection is not None:
            raw: Any = connection.connection.driver_connection
            with undecoded(raw), raw.cursor() as cursor:
                cursor.execute(sql.replace("%%", "%"))
                yield from read_back.fragments([list(cursor.fetchall())], make)
            return
        own = self._connect(conv=pymysql.converters.encoders, use_unicode=False)
        try:
            with own.cursor(pymysql.cursors.SSCursor) as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
                cursor.execute(sql.replace("%%", "%"))
                blocks = iter(lambda: list(cursor.fetchmany(limit)), [])
                yield from read_back.fragments(blocks, make)
        finally:
            own.close()

    def field(self, kind: Kind, family: str, column: Any) -> str | None:
        given = column.type
        places = getattr(given, "scale" if family == "decimal" else "fsp", None) or 0
        return mysql_checksum.field(kind, family, self._name(column), places=places)

    def reference(self, column: Any, field: str, dangling: str) -> str:
        return mysql_checksum.reference(self._name(column), field, dangling)

    def total(self, fields: Sequence[str], key: Sequence[str]) -> str | None:
        return mysql_checksum.total(fields, key, "target")

    def _name(self, column: Any) -> str:
        return str(column.compile(dialect=self.engine.dialect)).replace("%%", "%")


_BINARY = (sa.LargeBinary, sa.types._Binary)


def _whole(raw: bytes) -> str:
    """An integer out of a DECIMAL column: 8.000 is 8."""
    text = raw.decode()
    return text.rstrip("0").rstrip(".") if "." in text else text


def _str(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _ssl(query: Any) -> dict[str, str] | None:
    """TLS as libmysqlclient's url options name it: ssl_ca, ssl_cert, ssl_key."""
    named = {k.removeprefix("ssl_"): str(v) for k, v in query.items() if k.startswith("ssl_")}
    return named or None
