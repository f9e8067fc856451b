"""The matching: both sides' keys and digests in a SQLite file that lives as long as one run, and
the set-wise statements that pair them.

Pure of servers. Invariant: a row has at most one partner; a row whose key is not the key of exactly
one row on each side is ambiguous under that rule, takes no part in later ones, and is reported.
Memory does not grow with the rows: they are in the file.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ops.enrol import likely
from ops.enrol.twin import Parent, Rule, Twin

CACHE_KB = 96 << 10
BY_ID = -1
"""In place of a rule's number: the two have the same id already."""
SIDES = {"source": "s", "target": "t"}

MANY, TAKEN, OTHER, UNDONE, CHANGED = (
    "more than one row has this key",
    "an earlier rule decided the only partner, or found it ambiguous",
    "the target's row has another id already",
    "this match was undone by hand",
    "changed meanwhile",
)


class Pair(NamedTuple):
    """A match to be written: both rows, their keys as JSON, the id, what must still be so, and
    how probable it is, where it is only likely.
    """

    source_row: int
    target_row: int
    source_key: str
    target_key: str
    identity: str | None
    rule: int
    digest: bytes
    links: tuple[Any, ...]
    score: float | None = None


class Scratch:
    """The working file."""

    def __init__(self, folder: Path, made: Sequence[Twin]) -> None:
        self._linked = {twin.number: twin.linked for twin in made}
        self._db = sqlite3.connect(folder / "enrol.db", isolation_level=None)
        for pragma in (
            "journal_mode = OFF",
            "synchronous = OFF",
            "locking_mode = EXCLUSIVE",
            f"cache_size = -{CACHE_KB}",
        ):
            self._db.execute(f"PRAGMA {pragma}")
        for twin in made:
            self._make(twin)

    def close(self) -> None:
        """Close the file; its folder is the caller's to remove."""
        self._db.close()

    def all(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """A statement's rows."""
        return self._db.execute(sql, values).fetchall()

    def _make(self, twin: Twin) -> None:
        n = twin.number
        names = [f"f{i}" for i in range(len(twin.linked))]
        names += [f"k{i}" for i in range(len(twin.rules))]
        names += [f"v{i}" for i in range(len(twin.compared))]
        columns = ", ".join(["row INTEGER PRIMARY KEY", "key", "id", *names])
        for side in SIDES.values():
            self._db.execute(f"CREATE TABLE {side}{n} ({columns})")
        self._db.execute(
            f"CREATE TABLE m{n} (s INTEGER PRIMARY KEY, t INTEGER NOT NULL, rule INTEGER, score)"
        )
        self._db.execute(
            f"CREATE TABLE a{n} (side, row INTEGER, grp INTEGER, PRIMARY KEY (side, row))"
            " WITHOUT ROWID"
        )
        self._db.execute(f"CREATE TABLE g{n} (grp INTEGER PRIMARY KEY, rule, reason)")
        self._db.execute(f"CREATE TABLE y{n} (grp INTEGER, side, row INTEGER)")

    def add(self, twin: Twin, role: str, rows: Iterable[Sequence[Any]]) -> None:
        """Rows as (key, id, linked …, digests …, compared …)."""
        width = 2 + len(twin.linked) + len(twin.rules) + len(twin.compared)
        marks = ", ".join("?" * width)
        self._db.execute("BEGIN")
        self._db.executemany(f"INSERT INTO {SIDES[role]}{twin.number} VALUES (NULL, {marks})", rows)
        self._db.execute("COMMIT")

    # Matching.

    def match(self, twin: Twin) -> None:
        """Pair the rows of one twin: by ids that both have, then by each rule in order."""
        n = twin.number
        self._db.execute("BEGIN")
        for side in SIDES.values():
            for i in range(len(twin.linked)):
                self._db.execute(f"CREATE INDEX {side}{n}_f{i} ON {side}{n} (f{i})")
        has_ids = all(
            self.all(f"SELECT 1 FROM {side}{n} WHERE id IS NOT NULL LIMIT 1")
            for side in SIDES.values()
        )
        if has_ids:
            ids = [f"SELECT {i} AS side, row, id AS k FROM {side}{n} WHERE id IS NOT NULL"
                   for i, side in enumerate(SIDES.values())]  # fmt: skip
            self._pair(twin, BY_ID, ids, 0)
        for number, rule in enumerate(twin.rules):
            chosen = [self._keyed(twin, side, number, rule) for side in SIDES]
            if rule.likely is None:
                self._pair(twin, number, chosen, len(rule.parents))
            else:
                likely.pair(self._db, twin, number, rule, chosen, self._free)
        # Made late where one pass finds all: the matches came in the order of their keys.
        self._db.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS m{n}_t ON m{n} (t)")
        if self.all(f"SELECT 1 FROM t{n} WHERE id IS NOT NULL LIMIT 1"):
            self._part(twin, OTHER, f"""
                SELECT m.s, m.t, m.rule FROM m{n} m JOIN t{n} t ON t.row = m.t
                JOIN s{n} s ON s.row = m.s
                WHERE m.rule >= 0 AND t.id IS NOT NULL AND t.id IS NOT s.id
            """)  # fmt: skip
        self._db.execute("COMMIT")

    def _keyed(self, twin: Twin, role: str, number: int, rule: Rule) -> str:
        """(side, row, digest, each parent's match) of the rows that have all of them; a match is
        named by its source row.
        """
        side, n = SIDES[role], twin.number
        joins, names = "", []
        for i, column in enumerate(rule.parents):
            parent = twin.parents[column]
            mine = twin.linked.index(column)
            joins += (
                f" JOIN {side}{parent.number} p{i} ON p{i}.{self.column_of(parent)} = r.f{mine}"
                f" JOIN m{parent.number} m{i} ON m{i}.{side} = p{i}.row"
            )
            names.append(f", m{i}.s AS p{i}")
        return (
            f"SELECT {int(role == 'target')} AS side, r.row, r.k{number} AS k{''.join(names)}"
            f" FROM {side}{n} r{joins} WHERE r.k{number} IS NOT NULL"
        )

    def column_of(self, parent: Parent) -> str:
        """The column of a parent that a reference names."""
        return f"f{self._linked[parent.number].index(parent.column)}"

    _linked: dict[int, Sequence[str]]

    def _pair(self, twin: Twin, rule: int, chosen: Sequence[str], parents: int) -> None:
        """Pair what has one key, a group for each that both sides have; what else has it is
        ambiguous. chosen: (side, row, k, each parent) of both sides.
        """
        n, union = twin.number, " UNION ALL ".join(chosen)
        names = ", ".join(["k", *(f"p{i}" for i in range(parents))])
        self._db.execute("DROP TABLE IF EXISTS grouped")
        self._db.execute(f"""
            CREATE TABLE grouped AS SELECT {names},
                sum(side = 0) AS ns, sum(side = 1) AS nt,
                max(CASE side WHEN 0 THEN row END) AS s, max(CASE side WHEN 1 THEN row END) AS t
            FROM ({union}) GROUP BY {names} HAVING sum(side = 0) > 0 AND sum(side = 1) > 0
        """)
        paired = self._db.execute(f"""
            INSERT INTO m{n} SELECT s, t, {rule}, NULL FROM grouped g
            WHERE ns = 1 AND nt = 1 AND {self._free(n, "s", "g.s")} AND {self._free(n, "t", "g.t")}
            ORDER BY s
        """).rowcount
        if self.all("SELECT count(*) FROM grouped") == [(paired,)]:
            return
        self._db.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS m{n}_t ON m{n} (t)")
        same = " AND ".join(f"b.{c} = u.{c}" for c in names.split(", "))
        first = self._next_group(n)
        self._db.execute("DROP TABLE IF EXISTS bad")
        self._db.execute(f"""
            CREATE TABLE bad AS SELECT {first} + row_number() OVER () AS grp, g.* FROM grouped g
            WHERE (ns > 1 OR nt > 1) OR NOT EXISTS (SELECT 1 FROM m{n} m WHERE m.s = g.s AND
                                                    m.t = g.t)
        """)
        self._db.execute("CREATE INDEX bad_k ON bad (k)")
        self._db.execute(f"""
            CREATE TEMP TABLE members AS SELECT b.grp, u.side, u.row,
                CASE u.side WHEN 0 THEN {self._free(n, "s", "u.row")}
                            ELSE {self._free(n, "t", "u.row")} END AS free
            FROM ({union}) u JOIN bad b ON {same}
        """)
        # A group of rows that all have a partner says nothing against any of them.
        self._db.execute(
            "DELETE FROM members WHERE grp NOT IN (SELECT grp FROM members WHERE free)"
        )
        self._db.execute(f"""
            INSERT INTO g{n} SELECT grp, {rule},
                CASE WHEN ns > 1 OR nt > 1 THEN '{MANY}' ELSE '{TAKEN}' END
            FROM bad WHERE grp IN (SELECT grp FROM members)
        """)
        self._db.execute(f"INSERT INTO y{n} SELECT grp, side, row FROM members")
        self._db.execute(f"INSERT INTO a{n} SELECT side, row, grp FROM members WHERE free")
        self._db.execute("DROP TABLE members")

    def _free(self, n: int, side: str, row: str) -> str:
        number = int(side == "t")
        return (
            f"(NOT EXISTS (SELECT 1 FROM m{n} x WHERE x.{side} = {row}) AND "
            f"NOT EXISTS (SELECT 1 FROM a{n} x WHERE x.side = {number} AND x.row = {row}))"
        )

    def _next_group(self, n: int) -> int:
        ((last,),) = self.all(f"SELECT coalesce(max(grp), 0) FROM g{n}")
        return int(last)

    def _part(self, twin: Twin, reason: str, pairs: str) -> None:
        """Matches that are not to stand (source row, target row, rule) become ambiguous."""
        n = twin.number
        first = self._next_group(n)
        self._db.execute("DROP TABLE IF EXISTS parted")
        self._db.execute(
            f"CREATE TABLE parted AS SELECT {first} + row_number() OVER () AS grp, x.* FROM"
            f" ({pairs}) x"
        )
        self._db.execute(f"INSERT INTO g{n} SELECT grp, rule, ? FROM parted", (reason,))
        for number, side in enumerate(SIDES.values()):
            self._db.execute(f"INSERT INTO y{n} SELECT grp, {number}, {side} FROM parted")
            self._db.execute(f"INSERT INTO a{n} SELECT {number}, {side}, grp FROM parted")
        self._db.execute(f"DELETE FROM m{n} WHERE s IN (SELECT s FROM parted)")

    def undone(self, twin: Twin, pairs: Iterable[tuple[str, str]]) -> None:
        """Take back matches that were undone by hand: (target key, id)."""
        self._db.execute("CREATE TABLE IF NOT EXISTS undone (key, id)")
        self._db.execute("DELETE FROM undone")
        self._db.executemany("INSERT INTO undone VALUES (?, ?)", pairs)
        n = twin.number
        self._part(twin, UNDONE, f"""
            SELECT m.s, m.t, m.rule FROM undone JOIN s{n} s ON s.id = undone.id
            JOIN t{n} t ON t.key = undone.key JOIN m{n} m ON m.s = s.row AND m.t = t.row
            WHERE m.rule >= 0
        """)  # fmt: skip

    def changed(self, twin: Twin, rows: Iterable[int]) -> None:
        """Take back the matches of these source rows, which changed since they were read."""
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS moved (s INTEGER PRIMARY KEY)")
        self._db.execute("DELETE FROM moved")
        self._db.executemany("INSERT INTO moved VALUES (?)", ((row,) for row in rows))
        n = twin.number
        self._part(twin, CHANGED, f"SELECT s, t, rule FROM m{n} WHERE s IN (SELECT s FROM moved)")

    def to_write(self, twin: Twin, chunk: int) -> Iterator[list[Pair]]:
        """Matches by a rule whose target row has no id yet, in chunks, in the target's order."""
        n, after = twin.number, 0
        k = "".join(f" WHEN {i} THEN s.k{i}" for i in range(len(twin.rules)))
        links = "".join(f", s.f{i}, t.f{i}" for i in range(len(twin.linked)))
        while twin.rules:
            rows = self.all(f"""
                SELECT m.s, m.t, s.key, t.key, s.id, m.rule, CASE m.rule{k} END, m.score{links}
                FROM m{n} m JOIN s{n} s ON s.row = m.s JOIN t{n} t ON t.row = m.t
                WHERE m.t > ? AND m.rule >= 0 AND t.id IS NULL ORDER BY m.t LIMIT ?
            """, after, chunk)  # fmt: skip
            if not rows:
                return
            yield [Pair._make((*row[:7], row[8:], row[7])) for row in rows]
            after = rows[-1][1]
