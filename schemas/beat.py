"""A beat: a numbered row in a source, by which a dump shows that it is no older than a position.

1. a position is noted; 2. then the beat that names it is committed; 3. the dump's snapshot sees the
beat. Whoever sees 3 was read after 2, so after 1, and holds all that was committed up to there.
A dump without the beat proves nothing. The table is the source's own copy of what was noted; it is
dumped with the tables beside it, and never captured (`headwater_*`).
"""

from dataclasses import dataclass

from schemas.change import Position

BEATS = "headwater_beat"
"""The table, one in each schema that is captured: number, source, dumped, position, noted_at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """number: ascends by time in one schema's table. noted_at: microseconds since 1970 UTC, the
    clock of the machine that noted it.
    """

    number: int
    position: Position
    noted_at: int
