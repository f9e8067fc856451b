"""Which row a key of the source meant at which place in its log, as several readers of that log
tell it who stand at other places: one sync_id for one row, whoever comes first.

Pure: rows are kept in apply/shared.py. Invariants: the intervals of one key do not overlap, at most
the last one is open, and who asks again for the same place gets the same sync_id. A row that was
not made where it is met is taken for the one that the key meant next to it: nothing tells otherwise
while who saw the key given to another row in between is behind.
"""

from dataclasses import dataclass
from uuid import uuid4

Moment = tuple[int, int]
"""A place in a source's log: batch and ordinal."""

EVER: Moment = (2**62, 0)


@dataclass(slots=True)
class Meaning:
    """One row that a key meant. since: where it was made, or, where that is not known (is_exact),
    the earliest place at which it was met; until: None while nobody has seen its end.
    number: of the kept row, None where it is new.
    """

    number: int | None
    sync_id: str
    since: Moment
    is_exact: bool
    until: Moment | None
    is_changed: bool = False


def meant(known: list[Meaning], at: Moment, *, is_new: bool) -> Meaning:
    """The row that the key meant at this place, among those of the key, to which it is added where
    nobody has met it yet; is_new: it was made there. Others that this shows to have ended are
    changed.
    """
    until = None
    for one in sorted(known, key=lambda m: m.until or EVER):
        if (one.until or EVER) <= at:
            continue
        if one.since == at or (one.since < at and not is_new):
            return one
        if one.since < at:
            # The key was given to a new row here: who saw the old one go has not told it yet.
            one.until, one.is_changed = at, True
            continue
        if not one.is_exact:
            one.since, one.is_exact, one.is_changed = at, is_new, True
            return one
        until = one.since
        break
    found = Meaning(None, str(uuid4()), at, is_new, until)
    known.append(found)
    return found
