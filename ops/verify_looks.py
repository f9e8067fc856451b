"""What looks at both sides have seen, in a temporary file: memory does not grow with the tables.

The first look keeps sixteen bytes a row; later ones keep the rows under suspicion whole. A row is
`steady` when two looks in a row saw the same on either side. The file is gone when it is closed.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple

import orjson

from schemas.codec import Wire

Side = Literal["source", "target"]

CACHE_KIB = 32 * 1024

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE seen (tab INT, key TEXT, side TEXT, form);
CREATE TABLE parent (tab TEXT, source_key TEXT, key TEXT, PRIMARY KEY (tab, source_key))
  WITHOUT ROWID;
CREATE TABLE suspect (tab INT, key TEXT, source, target, twice INT, steady INT,
  PRIMARY KEY (tab, key)) WITHOUT ROWID;
"""
_SUSPECT = """
INSERT INTO suspect (tab, key)
SELECT tab, key FROM seen GROUP BY tab, key
HAVING count(*) <> 2 OR min(side) = max(side) OR min(form) <> max(form)
"""
_JUDGE = """
CREATE TABLE judged AS
SELECT o.tab, o.key,
  max(CASE s.side WHEN 'source' THEN s.form END) AS source,
  max(CASE s.side WHEN 'target' THEN s.form END) AS target,
  coalesce(sum(s.side = 'source') > 1 OR sum(s.side = 'target') > 1, 0) AS twice,
  o.source AS source_before, o.target AS target_before
FROM suspect o LEFT JOIN seen s ON s.tab = o.tab AND s.key = o.key
GROUP BY o.tab, o.key
"""
_SETTLE = """
INSERT INTO suspect
SELECT tab, key, source, target, twice, source IS source_before AND target IS target_before
FROM judged WHERE source IS NOT target OR twice
"""


class Suspect(NamedTuple):
    """A row that is not equal: what each side's last look saw (None: no such row)."""

    key: str
    source: list[Wire] | None
    target: list[Wire] | None


class Looks:
    """The file. Tables are numbered by the caller; forms are canonical rows."""

    def __init__(self) -> None:
        # An empty name makes SQLite use an unlinked file of its own in its temporary folder.
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._db.executescript(_SCHEMA)
        self._first = True

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    def begin(self) -> None:
        """Start a look; what the last one made suspect stays."""
        self._db.executescript("DELETE FROM seen; DELETE FROM parent; BEGIN")

    def note(self, tab: int, side: Side, rows: Iterable[tuple[str, list[Wire]]]) -> None:
        """Keep rows (key, canonical form) of one side; after the first look only suspects."""
        if self._first:
            self._db.executemany(
                "INSERT INTO seen VALUES (?, ?, ?, ?)",
                (
                    (tab, k, side, blake2b(orjson.dumps(f), digest_size=16).digest())
                    for k, f in rows
                ),
            )
            return
        self._db.executemany(
            "INSERT INTO seen SELECT ?1, ?2, ?3, ?4"
            " WHERE EXISTS (SELECT 1 FROM suspect WHERE tab = ?1 AND key = ?2)",
            ((tab, k, side, orjson.dumps(f).decode()) for k, f in rows),
        )

    def end(self, *, judge: bool) -> None:
        """Compare: rows that are equal now are suspects no longer. Without `judge` (the target side
        could not be read) suspects stay as they were.
        """
        if judge and self._first:
            self._db.execute(_SUSPECT)
        elif judge:
            self._db.execute(_JUDGE)
            self._db.execute("DELETE FROM suspect")
            self._db.execute(_SETTLE)
            self._db.execute("DROP TABLE judged")
        self._db.execute("COMMIT")
        self._first = False

    def note_parents(self, table: str, pairs: Iterable[tuple[str, str]]) -> None:
        """Keep which identity each source key of a referenced table has, for this look."""
        self._db.executemany(
            "INSERT OR REPLACE INTO parent VALUES (?, ?, ?)", ((table, a, b) for a, b in pairs)
        )

    def parents(self, table: str, source_keys: Iterable[str]) -> dict[str, str]:
        """The identities of these source keys, where they are known."""
        ask = "SELECT key FROM parent WHERE tab = ? AND source_key = ?"
        found = ((k, self._db.execute(ask, (table, k)).fetchone()) for k in source_keys)
        return {k: row[0] for k, row in found if row is not None}

    def suspects_by_table(self) -> dict[int, tuple[int, int]]:
        """Table number -> how many suspects it has, and how many of them are steady."""
        ask = "SELECT tab, count(*), coalesce(sum(steady), 0) FROM suspect GROUP BY tab"
        return {tab: (count, steady) for tab, count, steady in self._db.execute(ask)}

    def steady(self, tab: int, limit: int) -> Iterator[Suspect]:
        """The first steady suspects of a table, by key."""
        ask = (
            "SELECT key, source, target FROM suspect WHERE tab = ? AND steady ORDER BY key LIMIT ?"
        )
        for key, source, target in self._db.execute(ask, (tab, limit)):
            yield Suspect(key, _form(source), _form(target))


def _form(text: str | None) -> list[Wire] | None:
    return None if text is None else orjson.loads(text)


def key_text(names: Sequence[str], values: Sequence[Wire]) -> str:
    """An identity as JSON text, from canonical values: the same from either side."""
    return orjson.dumps(dict(zip(names, values, strict=True))).decode()
