"""One table of a source by ranges of its identity, for verify: the same over every server.

Each call is one statement on a connection of its own, so one short snapshot. Invariant: a range's
rows and its checksum are selected by the same words.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from orjson import dumps

from schemas.checksum import DANGLING
from schemas.codec import Wire, image
from schemas.derived import identities
from schemas.kinds import Kind
from schemas.ranges import Compared, Key, Total, wires
from schemas.table import Column, Table

SCANNED_ROWS = 50_000
"""Rows whose keys one read looks through for those that are asked for by a derived identity."""
KEPT_KEYS = 200_000
"""So many rows' keys are remembered for later, asked for or not."""

Make = Callable[[bytes], str]
"""A wire fragment of what a server printed."""


class Dialect(Protocol):
    """What differs: capture/postgres_ranges.py, capture/mysql_ranges.py."""

    def query(self, sql: str) -> Sequence[Sequence[bytes | None]]:
        """A statement's rows as the server prints them."""
        ...

    def quoted(self, name: str) -> str:
        """A name as SQL."""
        ...

    def relation(self, table: Table) -> str:
        """The table as SQL, without what only inherits from it."""
        ...

    def printed(self, column: Column, sql: str) -> str:
        """What to select so that `fragment` reads the column."""
        ...

    def fragment(self, kind: Kind) -> Make:
        """The wire fragment of a printed value."""
        ...

    def literal(self, kind: Kind, value: Wire) -> str:
        """A wire value as SQL, comparable with a column of its kind."""
        ...

    def ordered(self, column: Column, sql: str) -> str:
        """What to sort the column by, where a literal of its kind is compared with it."""
        ...

    def field(self, kind: Kind, column: Column, sql: str) -> str | None:
        """The column's field of a line (schemas/checksum.py)."""
        ...

    def reference(self, column: str, field: str, dangling: str) -> str:
        """A translated reference's field."""
        ...

    def total(self, fields: Sequence[str], key: Sequence[str]) -> str:
        """The number of rows and the exclusive or of their hashes, as two columns."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


Printed = Sequence[bytes | None]
"""One column of rows as the server prints it."""


class _Value(NamedTuple):
    """What is selected for one value of a row, and what makes it of those columns."""

    selected: list[str]
    read: Callable[[Sequence[Printed]], list[Wire]]


class TableRanges:
    """Implements schemas.ranges.SourceRanges.

    An identity that is derived is computed here, of the columns it is derived from, by which the
    ranges go.
    """

    def __init__(self, dialect: Dialect, compared: Compared) -> None:
        self._dialect, self._compared = dialect, compared
        table = compared.table
        self._identity = [table.by_name[n] for n in table.at_source.identity]
        self._order = [dialect.ordered(c, self._mine(c.name)) for c in self._identity]
        self._aliases = aliases = {name: f"p{i}" for i, name in enumerate(compared.parents)}
        self._from = f"{dialect.relation(table)} t"
        self._joins = "".join(
            f" LEFT JOIN {dialect.relation(parent.table)} {aliases[name]} ON "
            f"{aliases[name]}.{dialect.quoted(parent.key)} = {self._mine(name)}"
            for name, parent in compared.parents.items()
        )
        self._total = self._make_total()
        self._values = [self._value(name) for name in compared.names]
        self._keys: dict[Wire, Key] = {}

    @property
    def sorts_alike(self) -> bool:
        """See Ranges.sorts_alike."""
        if self._compared.table.is_derived:
            return False
        is_uuid = any(c.kind.name == "uuid" for c in self._identity)
        return not (is_uuid and self._compared.table.family == "mariadb")

    def end(self, after: Key | None, rows: int) -> Key | None:
        """See SourceRanges.end; the identity's index alone is read."""
        printed = [self._dialect.printed(c, self._mine(c.name)) for c in self._identity]
        found = self._dialect.query(
            f"SELECT {', '.join(printed)} FROM {self._from} WHERE {self._between(after, None)} "
            f"ORDER BY {', '.join(self._order)} LIMIT 1 OFFSET {rows - 1:d}"
        )
        makers = [self._dialect.fragment(c.kind) for c in self._identity]
        pairs = zip(makers, found[0], strict=True) if found else ()
        return wires(None if v is None else m(v) for m, v in pairs) or None

    def total(self, low: Key | None, high: Key | None) -> Total | None:
        """See Ranges.total."""
        if self._total is None:
            return None
        [(rows, hashes)] = self._dialect.query(
            f"SELECT {self._total} FROM {self._from}{self._joins} WHERE {self._between(low, high)}"
        )
        return Total(int(rows or 0), int(hashes or 0) & 0xFFFFFFFFFFFFFFFF)

    def rows(self, low: Key | None, high: Key | None) -> Iterator[list[list[Wire]]]:
        """See Ranges.rows; one block, as whoever asks keeps ranges small."""
        yield self._read(self._between(low, high))

    def rows_of(self, keys: Sequence[Key]) -> list[list[Wire]]:
        """See Ranges.rows_of."""
        if self._compared.table.is_derived:
            keys = self._found(keys)
        one = [
            " AND ".join(
                f"{by} = {self._dialect.literal(c.kind, v)}"
                for by, c, v in zip(self._order, self._identity, key, strict=True)
            )
            for key in keys
        ]
        return self._read(" OR ".join(f"({o})" for o in one)) if keys else []

    def close(self) -> None:
        """See Ranges.close."""
        self._dialect.close()

    def _mine(self, name: str) -> str:
        return f"t.{self._dialect.quoted(name)}"

    def _make_total(self) -> str | None:
        fields = {n: self._field(n) for n in self._compared.names}
        found = {n: f for n, f in fields.items() if f is not None}
        if len(found) != len(fields):
            return None
        key = [found[c.name] for c in self._identity]
        return self._dialect.total(list(found.values()), key)

    def _field(self, name: str) -> str | None:
        parent, table = self._compared.parents.get(name), self._compared.table
        if parent is None:
            if table.is_derived and name in table.identity:
                return None
            kind, column = self._compared.kinds[name], table.by_name[name]
            return self._dialect.field(kind, column, self._mine(name))
        if parent.table.is_derived:
            return None
        theirs = parent.table.by_name[parent.identity]
        sql = f"{self._aliases[name]}.{self._dialect.quoted(parent.identity)}"
        field = self._dialect.field(parent.kind, theirs, sql)
        return field and self._dialect.reference(self._mine(name), field, DANGLING["source"])

    def _value(self, name: str) -> _Value:
        parent = self._compared.parents.get(name)
        if parent is None:
            return self._of(self._compared.table, name, "t")
        names = [parent.identity]
        identity = self._of(parent.table, parent.identity, self._aliases[name])

        def references(printed: Sequence[Printed]) -> list[Wire]:
            return [
                None if flag is None else image(names, [dumps(value).decode()])
                for flag, value in zip(printed[0], identity.read(printed[1:]), strict=True)
            ]

        flag = f"CASE WHEN {self._mine(name)} IS NOT NULL THEN '1' END"
        return _Value([flag, *identity.selected], references)

    def _of(self, table: Table, name: str, alias: str) -> _Value:
        """A column of a table that goes by this alias; computed, if it is a derived identity."""
        is_derived = table.is_derived and name in table.identity
        columns = [table.by_name[n] for n in (table.derived_from if is_derived else [name])]
        makers = [self._dialect.fragment(c.kind) for c in columns]
        selected = [
            self._dialect.printed(c, f"{alias}.{self._dialect.quoted(c.name)}") for c in columns
        ]

        def read(printed: Sequence[Printed]) -> list[Wire]:
            found = [
                wires(None if v is None else make(v) for v in values)
                for make, values in zip(makers, printed, strict=True)
            ]
            return [*identities(table, found)] if is_derived else found[0]

        return _Value(selected, read)

    def _read(self, where: str) -> list[list[Wire]]:
        selected = ", ".join(s for value in self._values for s in value.selected)
        found = self._dialect.query(
            f"SELECT {selected} FROM {self._from}{self._joins} WHERE {where}"
        )
        if not found:
            return []
        printed = iter(list(zip(*found, strict=True)))
        columns = [value.read([next(printed) for _ in value.selected]) for value in self._values]
        return list(map(list, zip(*columns, strict=True)))

    def _found(self, keys: Sequence[Key]) -> list[Key]:
        """What the source holds of these derived identities, by the values they are derived from:
        looked for among all rows, but for those that were found before.
        """
        wanted: set[Wire] = {value for (value,) in keys}
        if not wanted <= self._keys.keys():
            for values in self._scanned():
                made = identities(self._compared.table, values)
                found: dict[Wire, Key] = dict(zip(made, zip(*values, strict=True), strict=True))
                if len(self._keys) > KEPT_KEYS:
                    found = {one: found[one] for one in wanted & found.keys()}
                self._keys |= found
        return [self._keys[value] for value in wanted if value in self._keys]

    def _scanned(self) -> Iterator[list[list[Wire]]]:
        """Every row's values of the columns that identify it here, as columns, in pages."""
        printed = [self._dialect.printed(c, self._mine(c.name)) for c in self._identity]
        makers = [self._dialect.fragment(c.kind) for c in self._identity]
        low: Key | None = None
        while True:
            found = self._dialect.query(
                f"SELECT {', '.join(printed)} FROM {self._from} WHERE {self._between(low, None)} "
                f"ORDER BY {', '.join(self._order)} LIMIT {SCANNED_ROWS:d}"
            )
            if found:
                yield (
                    values := [
                        wires(None if v is None else make(v) for v in column)
                        for make, column in zip(makers, zip(*found, strict=True), strict=True)
                    ]
                )
            if len(found) < SCANNED_ROWS:
                return
            low = [column[-1] for column in values]

    def _between(self, low: Key | None, high: Key | None) -> str:
        """`low < identity <= high`; also not null, which is the other side's business alone."""
        found = [f"{by} IS NOT NULL" for by in self._order]
        if low is not None:
            found.append(self._after(low))
        if high is not None:
            # The first one bounds what is read of the index.
            first = self._dialect.literal(self._identity[0].kind, high[0])
            found.append(f"{self._order[0]} <= {first}")
            if len(high) > 1:
                found.append(f"NOT ({self._after(high)})")
        return " AND ".join(found)

    def _after(self, key: Key) -> str:
        """`(a, b) > (x, y)`, spelled out: MySQL uses no index for the short form."""
        literals = [
            self._dialect.literal(c.kind, v) for c, v in zip(self._identity, key, strict=True)
        ]
        condition = f"{self._order[-1]} > {literals[-1]}"
        for by, literal in reversed(list(zip(self._order[:-1], literals[:-1], strict=True))):
            condition = f"{by} >= {literal} AND ({by} > {literal} OR ({condition}))"
        return condition
