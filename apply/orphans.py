"""Rows that the source's foreign keys took away, or whose reference those emptied, while they had
not been written here: the log shows the parent's delete alone (apply/cascade.py).

Such rows come later in the batch's order than they should, wait for its end, or are parked. A row
counts only as its own last change says. It is lost where the key that it references was deleted
after that change; so it never finds whoever has that key now.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from apply.cascade import (
    ACTIONS,
    Level,
    carried,
    carry,
    delete,
    kept_back,
    levels,
    may_go,
    staged_levels,
    still_referenced,
)
from apply.parking import Row
from apply.plan import Link, Plan
from apply.queue import image_of
from apply.refused import Refusal, Refused
from apply.server import Cause
from apply.transaction import Job, Transaction
from apply.upsert import Upserts
from schemas.codec import after_of, is_moved

Image = dict[str, Any]
At = tuple[int, int]
"""A batch, as headwater_identity counts, and an ordinal in it."""


class Gone(NamedTuple):
    """A delete that the log shows, and its place in the log; waits: it is parked itself."""

    at: At
    row: Row
    waits: bool = False


class Orphans:
    """One batch's."""

    def __init__(self, transaction: Transaction, upserts: Upserts) -> None:
        self._in, self._upserts = transaction, upserts
        # The newest delete by which a row with this key went, by table and column, by value.
        self._gone: dict[tuple[str, str], dict[str, Gone]] = {}

    def settle(self, wave: Sequence[Job]) -> None:
        """Leave out what is lost, and empty what refers to nothing, among the rows of a wave; jobs:
        parents first.
        """
        for job in wave:
            self._note_deletes(job)
        if not self._gone:
            return
        for job in wave:
            while self._settle(job):
                pass  # a tree's rows lose each other

    def _note_deletes(self, job: Job) -> None:
        columns = self._referenced(job.plan) if "d" in job.rows.ops else ()
        for i, op in enumerate(job.rows.ops) if columns else ():
            if op == "d" and not is_moved(job.rows.values[i]):
                image = orjson.loads(job.rows.values[i]).get("before") or {}
                at, row = (job.batch, job.rows.ordinals[i]), (job.plan.name, job.rows.keys[i])
                self._note(job.plan, columns, image, Gone(at, row))

    def _referenced(self, plan: Plan) -> set[str]:
        return {link.parent_key for _, link in carried(self._in, plan)}

    def _note(self, plan: Plan, columns: Iterable[str], image: Image, gone: Gone) -> None:
        for column in columns:
            value = image.get(column)
            if value is not None:
                known = self._gone.setdefault((plan.name, column), {})
                known[str(value)] = max(gone, known.get(str(value), gone))

    def _links(self, plan: Plan) -> list[Link]:
        return [
            link
            for link in plan.links
            if link.on_delete in ACTIONS and (link.parent_name, link.parent_key) in self._gone
        ]

    def _settle(self, job: Job) -> bool:
        """Whether rows were lost."""
        links, rows, folded = self._links(job.plan), job.rows, job.folded
        if not links:
            return False
        lost, values, merged = [], list(rows.values), dict(folded.merged)
        for i in folded.upserts:
            image = merged.get(i) or after_of(values[i])
            gone, emptied = self._judge(job.plan, links, image, (job.batch, rows.ordinals[i]))
            if gone:
                lost.append(i)
            elif emptied:
                values[i] = orjson.dumps({"after": image, "op": "u"})
                merged.pop(i, None)
        out = set(lost)
        ops = ["d" if i in out else op for i, op in enumerate(rows.ops)]
        job.rows = replace(rows, ops=ops, values=values)
        job.folded = replace(
            folded,
            upserts=[i for i in folded.upserts if i not in out],
            deletes=sorted([*folded.deletes, *lost]),
            again=[i for i in folded.again if i not in out],
            merged=merged,
        )
        job.deletes = sorted({*job.deletes, *lost})
        return bool(lost)

    def _judge(
        self, plan: Plan, links: Sequence[Link], image: Image, at: At
    ) -> tuple[Gone | None, list[str]]:
        """The delete by which a row is lost, or the references of its image that were emptied."""
        emptied = []
        for link in links:
            value = image.get(link.column)
            gone = self._gone[link.parent_name, link.parent_key].get(str(value))
            if gone is None or gone.at < at:
                continue
            if link.on_delete == "CASCADE":
                self._note(plan, self._referenced(plan), image, gone)
                return gone, []
            image[link.column] = None
            emptied.append(link.column)
        return None, emptied

    def settle_waiting(self) -> None:
        """The same of rows that wait for the batch's end, and of those that are parked."""
        self._note_parked()
        while self._gone and (self._settle_held() or self._settle_parked()):
            pass  # what is lost loses others

    def _note_parked(self) -> None:
        """The source's rows went with one whose delete is parked, too."""
        for change in self._in.parking.deletes:
            plan, value = self._in.plan(change.table_name), change.value.encode()
            columns = set() if is_moved(value) else self._referenced(plan)
            image = orjson.loads(value).get("before") if columns else None
            at = change.at_batch, change.at_ordinal
            self._note(plan, columns, image or {}, Gone(at, change.row, waits=True))

    def _settle_held(self) -> bool:
        found = False
        for name, waiting in self._upserts.held.items():
            plan = self._in.plan(name)
            links = self._links(plan)
            for key, row in list(waiting.items()) if links else ():
                image = orjson.loads(row.value)["after"]
                gone, emptied = self._judge(plan, links, image, (row.batch, row.ordinal))
                if gone and not self._must_stay(plan, key, gone):
                    del waiting[key]
                    self.lose(plan, {key: gone})
                    found = True
                elif emptied:
                    value = orjson.dumps({"after": image, "op": "u"})
                    waiting[key] = row._replace(value=value)
        return found

    def _settle_parked(self) -> bool:
        found, parking = False, self._in.parking
        for row in parking.rows:
            plan = self._in.plan(row[0])
            links = self._links(plan)
            image = image_of(parking.queue(row)) if links else None
            if image is None:
                continue
            last = parking.queue(row)[-1]
            gone, emptied = self._judge(plan, links, image, (last.at_batch, last.at_ordinal))
            if gone and not self._must_stay(plan, row[1], gone):
                parking.drop(row)
                self.lose(plan, {row[1]: gone})
                found = True
            elif emptied:
                parking.empty(row, emptied)
        return found

    def _must_stay(self, plan: Plan, key: bytes, gone: Gone) -> bool:
        """Whether a row cannot go before the delete by which it goes."""
        return gone.waits and bool(kept_back(self._in, levels(self._in, plan, [key])))

    # Rows that are in the target.

    def lose(self, plan: Plan, rows: Mapping[bytes, Gone]) -> None:
        """Delete rows that went with others, by key, and what went with them."""
        if rows:
            self.carry(plan, rows, and_delete=True)

    def carry(self, plan: Plan, rows: Mapping[bytes, Gone], *, and_delete: bool = False) -> None:
        """Do what these rows' deletion did to others; they themselves stay, unless `and_delete`.
        Raises Refused for deletes that must wait for a parked change, or for rows that only the
        target has.
        """
        found = staged_levels(self._in, plan, list(rows))
        kept = kept_back(self._in, found)
        if kept:
            raise self._referenced_still([list(rows.values())[i] for i in kept])
        if self._upserts.are_held or not self._in.parking.is_empty:
            gone = list(rows.values())
            for level in found[1:]:
                self._note_lost(level, [gone[root] for root in level.roots])
        savepoint = self._in.connection.begin_nested()
        try:
            carry(self._in, found)
            if and_delete:
                delete(self._in, plan, list(rows))
            savepoint.commit()
        except sa.exc.DBAPIError as error:
            if self._in.server.cause(error) is not Cause.FOREIGN:
                raise
            savepoint.rollback()
            stay = [of for key, of in rows.items() if not may_go(self._in, plan, key)]
            raise self._referenced_still(stay or list(rows.values())) from error

    def _referenced_still(self, gone: Sequence[Gone]) -> Refused:
        return still_referenced(
            self._in, [Refusal(*one.row, one.at[1], "referenced") for one in gone]
        )

    def _note_lost(self, level: Level, gone: Sequence[Gone]) -> None:
        """Keep by which keys the source's rows referenced these ones."""
        plan = level.plan
        by_key = dict(zip(level.keys, gone, strict=True))
        for column in self._referenced(plan):
            for key, value in self._values(plan, column, by_key):
                self._note(plan, [column], {column: value}, by_key[key])

    def _values(
        self, plan: Plan, column: str, rows: Mapping[bytes, Gone]
    ) -> Iterator[tuple[bytes, Any]]:
        if column != plan.own_key:
            self._in.put_keys(plan, list(rows), range(len(rows)))
            keys = list(rows)
            for at, value in self._in.connection.execute(self._in.sql(plan).values_of(column)):
                yield keys[at], value
            return
        (name,) = plan.identity
        by_name = {str(orjson.loads(key)[name]): key for key in rows}
        if plan.is_refereed:
            yield from ((key, text) for text, key in by_name.items())
            return
        for text, value, begin, end in self._in.identities.keys_of(plan.name, list(by_name)):
            key = by_name[text]
            if begin <= rows[key].at and (end is None or rows[key].at < end):
                yield key, value
