"""One table of a source by ranges of its identity, for verify: the same over every server.

Each call is one statement on a connection of its own, so one short snapshot. Invariant: a range's
rows and its checksum are selected by the same words.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from schemas.checksum import DANGLING
from schemas.codec import Wire, image
from schemas.kinds import Kind
from schemas.ranges import Compared, Key, Total, wires
from schemas.table import Column, Table

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


class TableRanges:
    """Implements schemas.ranges.SourceRanges."""

    def __init__(self, dialect: Dialect, compared: Compared) -> None:
        self._dialect, self._compared = dialect, compared
        table = compared.table
        self._identity = [table.by_name[n] for n in table.identity]
        self._order = [dialect.ordered(c, self._mine(c.name)) for c in self._identity]
        aliases = {name: f"p{i}" for i, name in enumerate(compared.parents)}
        self._parent = {
            name: f"{aliases[name]}.{dialect.quoted(parent.identity)}"
            for name, parent in compared.parents.items()
        }
        self._from = f"{dialect.relation(table)} t"
        self._joins = "".join(
            f" LEFT JOIN {dialect.relation(parent.table)} {aliases[name]} ON "
            f"{aliases[name]}.{dialect.quoted(parent.key)} = {self._mine(name)}"
            for name, parent in compared.parents.items()
        )
        self._total = self._make_total()
        self._selected, self._makers = self._make_rows()

    @property
    def sorts_alike(self) -> bool:
        """See Ranges.sorts_alike."""
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
        parent = self._compared.parents.get(name)
        if parent is None:
            kind, column = self._compared.kinds[name], self._compared.table.by_name[name]
            return self._dialect.field(kind, column, self._mine(name))
        theirs = parent.table.by_name[parent.identity]
        field = self._dialect.field(parent.kind, theirs, self._parent[name])
        return field and self._dialect.reference(self._mine(name), field, DANGLING["source"])

    def _make_rows(self) -> tuple[str, list[Make | None]]:
        """What to select, and how to read it; None before the two columns of a reference."""
        selected, makers = [], list[Make | None]()
        for name in self._compared.names:
            column, sql = self._compared.table.by_name[name], self._mine(name)
            parent = self._compared.parents.get(name)
            if parent is not None:
                selected.append(f"CASE WHEN {sql} IS NOT NULL THEN '1' END")
                makers.append(None)
                column, sql = parent.table.by_name[parent.identity], self._parent[name]
            selected.append(self._dialect.printed(column, sql))
            makers.append(self._dialect.fragment(column.kind))
        return ", ".join(selected), makers

    def _read(self, where: str) -> list[list[Wire]]:
        found = self._dialect.query(
            f"SELECT {self._selected} FROM {self._from}{self._joins} WHERE {where}"
        )
        if not found:
            return []
        columns = zip(self._makers, zip(*found, strict=True), strict=True)
        return list(map(list, zip(*self._columns(columns), strict=True)))

    def _columns(
        self, printed: Iterator[tuple[Make | None, Sequence[bytes | None]]]
    ) -> Iterator[Sequence[Wire]]:
        for name, (make, values) in zip(self._compared.names, printed, strict=False):
            if make is not None:
                yield wires(None if v is None else make(v) for v in values)
                continue
            of, identities = next(printed)
            assert of is not None, "a reference's flag stands before its identity"
            names = [self._compared.parents[name].identity]
            yield [
                None if flag is None else image(names, ["null" if v is None else of(v)])
                for flag, v in zip(values, identities, strict=True)
            ]

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
