"""What was asked of a running capture, taken into the copies' state (schemas/progress.py).

Pure. Invariant: a request is taken in once, whenever the capture dies: the state that says so is in
the same commit record as all that follows from it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from capture.copies import begun
from schemas.change import Progress, Sweep, SweepWhat
from schemas.progress import REQUESTS, asked_copies
from schemas.table import Table
from transport.asked import Asked, upto
from transport.record import Request

FINISHED_KEPT = 5
"""So many finished requests stay in the state, for whoever waits for their end."""


def taken_in(
    progress: Progress, asked: Sequence[Asked], tables: Mapping[str, Table], of: Mapping[str, int]
) -> Progress:
    """The state after these requests; `of`: about how many rows the tables have."""
    state = {"upto": -1, "paused": False, "copies": {}, **progress.get(REQUESTS, {})}
    copies: dict[str, dict[str, Any]] = dict(state["copies"])
    for number, request in asked:
        if number <= upto(progress):
            continue
        state["upto"] = number
        if request.what == "copy":
            copies[str(number)] = _copy(request, tables, of, copies)
        elif request.what == "cancel":
            one = copies.get(str(request.number))
            if one is not None and one["state"] == "copying":
                copies[str(request.number)] = {**one, "state": "cancelled"}
        else:
            state["paused"] = request.what == "pause"
    return {**progress, REQUESTS: {**state, "copies": _kept(copies)}}


def changed(progress: Progress, number: str, **members: Any) -> Progress:
    """The state with other members in one request's copy."""
    state = progress[REQUESTS]
    copies = {**state["copies"], number: {**state["copies"][number], **members}}
    return {**progress, REQUESTS: {**state, "copies": copies}}


def is_paused(progress: Progress) -> bool:
    """Whether copies stand still."""
    return bool(progress.get(REQUESTS, {}).get("paused"))


def sweeps(
    progress: Progress,
    number: str,
    tables: Mapping[str, Table],
    what: SweepWhat,
    names: Collection[str] = (),
) -> tuple[Sweep, ...]:
    """What targets are told of a copy's beginning or end: of whole tables, and of ranges of an
    identity that every server orders in the same way, by which the source reads them. names: only
    of these tables.
    """
    copy = asked_copies(progress)[number]
    found = []
    for full_name, state in copy["tables"].items():
        name = f"{number}.{state.get('turn', 0)}"
        if full_name not in (names or copy["tables"]):
            continue
        bounds = (copy["from"].get(full_name), state.get("until"))
        if "keys" in state or not (bounds == (None, None) or _is_number(tables.get(full_name))):
            continue
        after, until = (None if b is None else int(b[0]) for b in bounds)
        found.append(Sweep(full_name, name, what, copy["for"], after, until, copy["check"]))
    return tuple(found)


def _is_number(table: Table | None) -> bool:
    return (
        table is not None
        and len(table.identity) == 1
        and table.by_name[table.identity[0]].kind.name == "int"
        and (table.family == "postgres" or table.identity == table.primary_key)
    )


def _copy(
    request: Request,
    tables: Mapping[str, Table],
    of: Mapping[str, int],
    others: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """The state of a copy that was asked for."""
    wanted = request.tables or {name: {} for name in tables}
    unknown = [name for name in wanted if name not in tables]
    copy: dict[str, Any] = {
        "for": request.for_target,
        "check": request.check,
        "state": "copying",
    }
    if unknown:
        why = f"found no captured table {unknown[0]}"
        return {**copy, "state": "failed", "why": why, "tables": {}, "from": {}}
    busy = [n for n, other in others.items() if other["state"] == "copying"]
    if request.check and any(others[n]["tables"].keys() & wanted for n in busy):
        why = f"found its tables being copied or checked (request {', '.join(busy)})"
        return {**copy, "state": "failed", "why": why, "tables": {}, "from": {}}
    states = {
        name: begun(
            after=only.get("after"), until=only.get("until"), keys=only.get("keys"), of=of.get(name)
        )
        for name, only in wanted.items()
    }
    froms = {name: only["after"] for name, only in wanted.items() if only.get("after") is not None}
    return {**copy, "tables": states, "from": froms}


def _kept(copies: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    finished = [number for number, copy in copies.items() if copy["state"] != "copying"]
    gone = set(finished[:-FINISHED_KEPT])
    return {number: copy for number, copy in copies.items() if number not in gone}
