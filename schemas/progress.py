"""The state of copies, as it rides on the commit records.

By table full name, the first copies: {"public.users": {"what": "rows" | "identities" | "none",
"after": key, "open": [[after, until], …], "ended": bool, "rows": n, "done": bool}}, and "oid" where
the source keeps one (Source.stream). Keys are places in the table's paging order, null its start
or end. What lies beyond `after` was not read; what lies in `open` was begun and is read again.

Under REQUESTS, which is no table's name (those have a dot), the copies that were asked for:
{"upto": the newest request taken in, "paused": bool, "copies": {number: {"for": target | null,
"check": bool (rows are compared, not written),
"state": "copying" | "done" | "cancelled" | "failed", "why": text, "from": {name: key}, "tables":
{name: a state as above, with "until", "turn" (how often it began anew), or "keys" where rows are
listed}}}}.
"""

from collections.abc import Iterator
from typing import Any

from schemas.change import Progress

REQUESTS = "requests"


def first_copies(progress: Progress) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tables' own states by full name."""
    return ((name, state) for name, state in progress.items() if name != REQUESTS)


def asked_copies(progress: Progress) -> dict[str, dict[str, Any]]:
    """The copies that were asked for, by number."""
    copies: dict[str, dict[str, Any]] = progress.get(REQUESTS, {}).get("copies", {})
    return copies


def pending(progress: Progress, target: str | None) -> frozenset[str]:
    """Full names of the tables whose copy for this target (None: for any) is not finished."""
    names = {name for name, state in first_copies(progress) if not state.get("done")}
    for copy in asked_copies(progress).values():
        if copy.get("check"):
            continue
        if copy["state"] == "copying" and target in (None, copy["for"] or target):
            names |= {name for name, state in copy["tables"].items() if not state["done"]}
    return frozenset(names)
