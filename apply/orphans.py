"""Rows that a batch writes although the source's foreign keys took them away later in the same
batch, with their parent: the log shows the parent's delete alone (apply/cascade.py).

A row counts only as its own last change says. It is lost where the key that it references was
deleted after that change; so it never finds whoever has that key now.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import orjson

from apply.cascade import ACTIONS, carried, carry, delete
from apply.plan import Link, Plan
from apply.transaction import Job, Transaction
from apply.upsert import Held
from schemas.codec import after_of

Image = dict[str, Any]


class Orphans:
    """One batch's."""

    def __init__(self, transaction: Transaction) -> None:
        self._in = transaction
        # By table and column: the newest place at which a row with that key was deleted.
        self._gone: dict[tuple[str, str], dict[str, int]] = {}

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
            if op == "d":
                image = orjson.loads(job.rows.values[i]).get("before") or {}
                self._note(job.plan, columns, image, job.rows.ordinals[i])

    def _referenced(self, plan: Plan) -> set[str]:
        return {link.parent_key for _, link in carried(self._in, plan)}

    def _note(self, plan: Plan, columns: Iterable[str], image: Image, ordinal: int) -> None:
        for column in columns:
            value = image.get(column)
            if value is not None:
                at = self._gone.setdefault((plan.name, column), {})
                at[str(value)] = max(ordinal, at.get(str(value), -1))

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
            is_lost, is_changed = self._judge(job.plan, links, image, rows.ordinals[i])
            if is_lost:
                lost.append(i)
            elif is_changed:
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
        self, plan: Plan, links: Sequence[Link], image: Image, ordinal: int
    ) -> tuple[bool, bool]:
        """Whether a row is lost, and whether its image was changed."""
        is_changed = False
        for link in links:
            gone_at = self._gone[link.parent_name, link.parent_key].get(str(image.get(link.column)))
            if gone_at is None or gone_at < ordinal:
                continue
            if link.on_delete == "CASCADE":
                self._note(plan, self._referenced(plan), image, gone_at)
                return True, False
            image[link.column], is_changed = None, True
        return False, is_changed

    def settle_held(self, held: dict[str, dict[bytes, Held]]) -> None:
        """The same of rows that wait for the batch's end."""
        is_settled = not self._gone
        while not is_settled:
            is_settled = True
            for name, waiting in held.items():
                plan = self._in.plan(name)
                for key, row in list(waiting.items()) if self._links(plan) else ():
                    image = orjson.loads(row.value)["after"]
                    if row.batch != self._in.batch.batch:
                        continue
                    is_lost, is_changed = self._judge(plan, self._links(plan), image, row.ordinal)
                    if is_lost:
                        del waiting[key]
                        self._delete(plan, key)
                        is_settled = False
                    elif is_changed:
                        value = orjson.dumps({"after": image, "op": "u"})
                        waiting[key] = row._replace(value=value)

    def settle_parked(self) -> None:
        """The same of rows that wait, parked, for a parent that was deleted now."""
        parking = self._in.parking
        for change in parking.candidates("parent") if self._gone else ():
            plan = self._in.plan(change.table_name)
            for link in self._links(plan):
                gone = self._gone[link.parent_name, link.parent_key]
                if link.parent_name != change.waits_table or change.waits_key not in gone:
                    continue
                if link.on_delete == "CASCADE":
                    parking.drop(change.row)
                    self._delete(plan, change.row[1])
                else:
                    parking.empty(change.row, link.column)

    def _delete(self, plan: Plan, key: bytes) -> None:
        carry(self._in, plan, [key])
        delete(self._in, plan, [key])
