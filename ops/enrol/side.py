"""One of the two databases: its tables, and their rows as columns of comparable texts.

Both sides are read as verify reads a target (apply.server.Server), so that equal values are equal
texts whichever servers they come from. Nothing is written here.
"""

import json
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
import sqlalchemy as sa

from apply.catalog import Catalog
from apply.fit import family_of
from apply.read_back import read_kind
from apply.server import Cause, Server
from apply.target import Placement
from ops.enrol.rules import Step, Text, digests, normalised
from ops.enrol.twin import Twin
from schemas.canonical import canonical
from schemas.derived import identities
from schemas.errors import HeadwaterError, Misconfigured, Operator, Transient, Unsupported
from schemas.kinds import Kind
from schemas.table import Table

BLOCK = 10_000
_BINARY = (sa.LargeBinary, sa.types._Binary)
_KEYS: Mapping[str, Kind] = {
    "int": Kind(name="int", bits=64),
    "text": Kind(name="text"),
    "uuid": Kind(name="uuid"),
    "date": Kind(name="date"),
    "binary": Kind(name="binary"),
}
"""Families of primary keys by which a row can be named, and how they are read."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows as columns: their keys as JSON, their ids, and the texts of the twin's columns."""

    keys: list[str]
    ids: list[Text]
    texts: Mapping[str, list[Text]]


class Side:
    """role: "source" or "target"."""

    def __init__(self, role: str, name: str, server: Server) -> None:
        self.role, self.name, self.server = role, name, server

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """Driver errors become ours; each step may be run again."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            cause, why = self.server.cause(error), self.server.explain(error)
            where = f"{self.role} {self.name}"
            if cause in (Cause.LOST, Cause.LOCKED):
                raise Transient(
                    f"lost {where}, or waited too long for a lock there: {why}",
                    hint="run it again: what is done is kept, and it goes on from there",
                ) from error
            if cause is Cause.DENIED:
                raise Misconfigured(
                    f"was refused by {where}: {why}",
                    hint="the account needs to read the tables, and with --apply also ALTER, INDEX "
                    "and UPDATE on them; or let somebody run the statements that enrol shows",
                ) from error
            if cause is not Cause.UNKNOWN:
                raise Operator(
                    f"cannot change a row of {where}: {why}",
                    hint="a trigger, a check or a unique index refuses it: mend that, run it again",
                ) from error
            raise

    @contextmanager
    def connected(self, *, autocommit: bool = False) -> Iterator[sa.Connection]:
        """A connection of its own, rolled back unless it was committed."""
        with self.mapped(), self.server.engine.connect() as connection:
            if autocommit and not self.server.is_sqlite:
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection

    def reflected(self, places: Mapping[str, tuple[str, str]]) -> dict[str, sa.Table | None]:
        """Tables as they are now, by the source's full name."""
        with self.connected() as connection:
            catalog = Catalog(self.server, connection, Placement())
            return {name: catalog.table(place) for name, place in places.items()}

    def places(self, tables: Sequence[Table], placement: Placement) -> dict[str, tuple[str, str]]:
        """Where the source's tables land in a target."""
        with self.connected() as connection:
            catalog = Catalog(self.server, connection, placement)
            return {t.full_name: catalog.place(t.full_name) for t in tables}

    # Rows.

    def blocks(self, twin: Twin) -> Iterator[Block]:
        """All rows, from one snapshot, in blocks."""
        return self._read(twin, sa.true(), None)

    def blocks_of(
        self, twin: Twin, keys: Sequence[str], connection: sa.Connection | None = None
    ) -> Iterator[Block]:
        """Rows of these keys as they are now; locked, where it is in this transaction."""
        return self._read(twin, self.has_key(twin, keys), connection)

    def has_key(self, twin: Twin, keys: Sequence[str]) -> sa.ColumnElement[bool]:
        """Whether a row's primary key, as JSON, is one of these."""
        columns = list(twin.side(self.role).primary_key.columns)
        values = [[self._bound(*one) for one in zip(columns, json.loads(k), strict=True)]
                  for k in keys]  # fmt: skip
        coerced = [_coerced(c) for c in columns]
        if len(columns) == 1:
            return coerced[0].in_([value for (value,) in values])
        each = (sa.and_(*(c == v for c, v in zip(coerced, one, strict=True))) for one in values)
        return sa.or_(sa.false(), *each)

    def _bound(self, column: sa.Column[Any], value: Any) -> Any:
        if not isinstance(column.type, _BINARY):
            return value
        plain = b64decode(value).hex()
        is_postgres = not (self.server.is_mysql or self.server.is_sqlite)
        return sa.literal_column(f"decode('{plain}', 'hex')" if is_postgres else f"X'{plain}'")

    def _read(
        self, twin: Twin, where: sa.ColumnElement[bool], connection: sa.Connection | None
    ) -> Iterator[Block]:
        table = twin.side(self.role)
        columns = []
        for column in table.primary_key.columns:
            kind = _KEYS.get(family_of(column.type))
            if kind is None:
                raise Unsupported(
                    f"found {twin.name}.{column.name} in the {self.role}, a primary key of type "
                    f"{column.type}, by which enrol cannot name rows",
                    hint=f"exclude {twin.name}, or match its rows by hand",
                )
            columns.append((kind, family_of(column.type), column))
        width, forms = len(columns), []
        names = []
        for name in twin.columns:
            mine = twin.column(self.role, name)
            if mine is not None:
                given, family = twin.table.by_name[name].kind, family_of(mine.type)
                columns.append((read_kind(given, family), family, mine))
                names.append(name)
                forms.append(partial(_texts, given))
        of = twin.table.derived_from if self.role == "source" else ()
        for name in of:
            given, column = twin.table.by_name[name].kind, table.c[name]
            columns.append(
                (read_kind(given, family_of(column.type)), family_of(column.type), column)
            )
        id_ = None if of else self._id(twin)
        if id_ is not None:
            columns.append(id_)
        statement = sa.select(*(c for _, _, c in columns)).where(where)
        if connection is not None:
            statement = statement.with_for_update()
        with self.mapped():
            for rows in self.server.read(columns, statement, BLOCK, connection=connection):
                fragments = list(zip(*rows, strict=True))
                keys = [f"[{','.join(key)}]" for key in zip(*fragments[:width], strict=True)]
                ids = [None] * len(keys) if id_ is None else _decoded(fragments[-1])
                if of:
                    derived = fragments[width + len(names) :]
                    ids = identities(twin.table, [_decoded(column) for column in derived])
                texts = {
                    name: form(_decoded(column))
                    for name, form, column in zip(
                        names, forms, fragments[width : width + len(names)], strict=True
                    )
                }
                yield Block(keys, [None if i is None else str(i) for i in ids], texts)

    def _id(self, twin: Twin) -> tuple[Kind, str, Any] | None:
        """How a row's id is read; None where it can have none yet."""
        table = twin.side(self.role)
        if twin.paired is not None and self.role == "target":
            return None if twin.partner is None else (_KEYS["int"], "int", twin.partner)
        if twin.sync not in table.c:
            return None
        column = table.c[twin.sync]
        family = family_of(column.type)
        if family not in _KEYS:
            raise Unsupported(
                f"found {twin.name}.{twin.sync} in the {self.role}, of type {column.type}, which "
                "enrol does not fill",
                hint="make it a uuid or a char(36)",
            )
        return _KEYS[family], family, column


def keys_of(twin: Twin, role: str, values: Sequence[str]) -> str:
    """A primary key that a person writes, value by value, as JSON; raises Misconfigured."""
    columns = list(twin.side(role).primary_key.columns)
    if len(columns) != len(values):
        raise Misconfigured(
            f"found {len(values)} values for the primary key of {twin.name} in the {role}, which "
            f"has {len(columns)}",
            hint=f"give one for each of {', '.join(c.name for c in columns)}, in this order",
        )
    try:
        given = [
            int(v) if family_of(c.type) == "int" else v
            for c, v in zip(columns, values, strict=True)
        ]
    except ValueError as error:
        raise Misconfigured(
            f"found a text where the primary key of {twin.name} is a number",
            hint="see the key in the report",
        ) from error
    return "[" + ",".join(orjson.dumps(v).decode() for v in given) + "]"


def entries(twin: Twin, block: Block, unreadable: Counter[str]) -> Iterator[tuple[Any, ...]]:
    """Rows as Scratch.add takes them."""
    rows = len(block.keys)
    linked = [block.texts[name] for name in twin.linked]
    compared = [list(map(hash, block.texts[name])) for name in twin.compared]
    keys = key_digests(twin, block, unreadable)
    return zip(block.keys, block.ids, *linked, *keys, *compared, strict=True) if rows else iter(())


def key_digests(twin: Twin, block: Block, unreadable: Counter[str]) -> list[list[bytes | None]]:
    """A digest for each rule and row; counts values that a step cannot read, by column, also of
    columns that are only compared.
    """
    texts: dict[str, list[Text]] = {}
    read = {c for rule in twin.rules for c in (*rule.plain, *rule.kept) if c not in twin.parents}
    for name in read:
        steps: Sequence[Step] = twin.steps.get(name, ())
        texts[name], failed = normalised(block.texts[name], steps)
        if failed:
            unreadable[name] += failed
    return [digests([texts[c] for c in rule.plain], len(block.keys)) for rule in twin.rules]


def _decoded(fragments: Sequence[str | None]) -> list[Any]:
    if None in fragments:
        fragments = [f or "null" for f in fragments]
    values: list[Any] = orjson.loads(f"[{','.join(fragments)}]")  # type: ignore[arg-type]
    return values


_SAME = ("text", "date", "enum", "binary")
"""Kinds whose wire values are comparable as they are (schemas/canonical.py)."""


def _texts(kind: Kind, values: list[Any]) -> list[Text]:
    """Comparable texts. What is no value of the kind (another type in the target) is its own
    text.
    """
    if kind.name not in _SAME:
        form = canonical(kind)
        try:
            values = [form(v) for v in values]
        except (ValueError, TypeError):
            values = [_tried(form, v) for v in values]
    return [None if v is None else v if type(v) is str else str(v) for v in values]


def _tried(form: Any, value: Any) -> Any:
    try:
        return form(value)
    except (ValueError, TypeError, HeadwaterError):
        return value


def _coerced(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """Compared with plain values, which the server takes for its own type's."""
    if isinstance(column.type, sa.Integer):
        return sa.type_coerce(column, sa.BigInteger)
    if isinstance(column.type, _BINARY):
        return column
    return sa.type_coerce(column, sa.String)
