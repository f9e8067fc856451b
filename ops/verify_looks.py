"""What looks at one range's rows have seen, in a temporary file: memory does not grow with it.

The first look keeps sixteen bytes a row; later ones keep the rows under suspicion whole. A suspect
is `steady` once STEADY looks in a row saw the same on either side. The file is gone when it is
closed.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

import orjson

from ops.verify_ranges import Seen
from schemas.checksum import Side
from schemas.codec import Wire
from schemas.ranges import Key

CACHE_KIB = 32 * 1024
STEADY = 3
"""Two would do for rows that change now and then: one that swings between two values may be seen
twice in the same pair of states.
"""

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE seen (key TEXT, side TEXT, form, wire TEXT);
CREATE TABLE suspect (key TEXT PRIMARY KEY, source, target, twice INT, looks INT, wire TEXT)
  WITHOUT ROWID;
"""
_SUSPECT = """
INSERT INTO suspect (key, looks, wire)
SELECT key, 0, coalesce(max(CASE side WHEN 'source' THEN wire END), max(wire))
FROM seen GROUP BY key HAVING count(*) <> 2 OR min(side) = max(side) OR min(form) <> max(form)
"""
_JUDGE = """
CREATE TABLE judged AS
SELECT o.key,
  max(CASE s.side WHEN 'source' THEN s.form END) AS source,
  max(CASE s.side WHEN 'target' THEN s.form END) AS target,
  coalesce(sum(s.side = 'source') > 1 OR sum(s.side = 'target') > 1, 0) AS twice,
  o.source AS source_before, o.target AS target_before, o.looks AS looks, o.wire AS wire
FROM suspect o LEFT JOIN seen s ON s.key = o.key
GROUP BY o.key
"""
_SETTLE = """
INSERT INTO suspect
SELECT key, source, target, twice,
  CASE WHEN looks > 0 AND source IS source_before AND target IS target_before
  THEN looks + 1 ELSE 1 END, wire
FROM judged WHERE source IS NOT target OR twice
"""


class Suspect(NamedTuple):
    """A row that is not equal: what each side's last look saw (None: no such row)."""

    key: str
    source: list[Wire] | None
    target: list[Wire] | None


class Looks:
    """The file; forms are canonical rows."""

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
        self._db.executescript("DELETE FROM seen; BEGIN")

    def note(self, side: Side, rows: Iterable[Seen]) -> None:
        """Keep rows of one side; after the first look only suspects."""
        if self._first:
            self._db.executemany(
                "INSERT INTO seen VALUES (?, ?, ?, ?)",
                (
                    (r.key, side, blake2b(orjson.dumps(r.form), digest_size=16).digest(), r.wire)
                    for r in rows
                ),
            )
            return
        self._db.executemany(
            "INSERT INTO seen SELECT ?1, ?2, ?3, ?4"
            " WHERE EXISTS (SELECT 1 FROM suspect WHERE key = ?1)",
            ((r.key, side, orjson.dumps(r.form).decode(), r.wire) for r in rows),
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

    def keys(self, limit: int) -> Iterator[list[Key]]:
        """The suspects' identities as wire values, in blocks."""
        cursor = self._db.execute("SELECT wire FROM suspect")
        while block := cursor.fetchmany(limit):
            yield [orjson.loads(wire) for (wire,) in block]

    def counts(self) -> tuple[int, int]:
        """How many suspects there are, and how many of them are steady."""
        ask = "SELECT count(*), coalesce(sum(looks >= ?), 0) FROM suspect"
        count, steady = self._db.execute(ask, (STEADY,)).fetchone()
        return count, steady

    def steady(self) -> Iterator[tuple[Suspect, Key]]:
        """The steady suspects, by key, each with its identity's wire values."""
        ask = "SELECT key, source, target, wire FROM suspect WHERE looks >= ? ORDER BY key"
        for key, source, target, wire in self._db.execute(ask, (STEADY,)):
            yield Suspect(key, _form(source), _form(target)), orjson.loads(wire)


def _form(text: str | None) -> list[Wire] | None:
    return None if text is None else orjson.loads(text)
