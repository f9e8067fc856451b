"""Deletes of one batch: what nothing references at once, the rest when nothing references it any
more.

A row that is still referenced waits for the block's upserts (children may move to another parent)
and then for the batch's end. So neither a foreign key nor a cascade of the target acts on rows that
the source kept.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import orjson
import sqlalchemy as sa

from apply.cascade import carried, children, still_referenced
from apply.detach import detach
from apply.halving import halve
from apply.orphans import At, Gone, Orphans
from apply.plan import Plan
from apply.refused import Refusal
from apply.server import Cause
from apply.transaction import ALL, Job, Transaction
from schemas.change import Truncate
from schemas.codec import is_moved
from schemas.errors import Poison


class Deletes:
    """The deletes of one batch; keeps the keys of rows that are still referenced."""

    def __init__(self, transaction: Transaction, orphans: Orphans) -> None:
        self._in, self._orphans = transaction, orphans
        self._left: dict[str, dict[bytes, At]] = {}
        # Those of them that the source deleted; others only left the target's part of the source.
        self._gone: set[tuple[str, bytes]] = set()

    def forget(self, name: str, keys: Iterable[bytes]) -> None:
        """Newer rows of these keys came."""
        if left := self._left.get(name):
            for key in keys:
                left.pop(key, None)

    def stage(self, job: Job) -> None:
        """Stage the keys that go, and let rows that may go together not hold each other."""
        if job.deletes:
            keys = [job.rows.keys[i] for i in job.deletes]
            self._in.put_keys(job.plan, keys, [job.rows.ordinals[i] for i in job.deletes])
            self._unlink(job.plan)

    def _unlink(self, plan: Plan) -> None:
        # Rows of a tree, or of a cycle of tables: none could be the first to go.
        for link in plan.links:
            if link.late:
                self._in.run(self._in.sql(plan).unlink(link.column))

    def delete(self, job: Job) -> None:
        """Delete what nothing references."""
        if not job.deletes:
            return
        rows, plan = job.rows, job.plan
        if plan.references and self._in.run(job.sql.hold_referenced()):
            held = set(self._in.ordinals(job.sql.held(plan.keys)))
            job.left = [i for i in job.folded.deletes if rows.ordinals[i] in held]
        self._in.written += self._in.run(job.sql.delete(), **ALL)
        self._in.referee.end(plan)

    def lose_children(self, job: Job, wave: Sequence[Job]) -> None:
        """Rows that were deleted on the way lose the children that the source's foreign keys took
        with them, though they were inserted again: all but those that came later.
        """
        again = {job.rows.keys[i] for i in job.folded.again}
        if not again or not carried(self._in, job.plan):
            return
        # What is still to be written came later, or had moved away (apply/orphans.py).
        later = {
            other.plan.name: {other.rows.keys[i] for i in other.folded.upserts} for other in wave
        }
        name, keys = job.plan.name, sorted(again)
        went = {
            key: at
            for key, at, op in zip(job.rows.keys, job.rows.ordinals, job.rows.ops, strict=True)
            if op == "d"
        }
        gone = [Gone((job.batch, went[key]), (name, key)) for key in keys]
        for child, link, pairs in children(self._in, job.plan, keys):
            # What is parked is settled at the batch's end.
            lost = {
                key: gone[parent]
                for key, parent in pairs
                if key not in later.get(child.name, ())
                and not self._in.parking.waits((child.name, key))
            }
            if link.on_delete == "CASCADE":
                self._orphans.lose(child, lost)
            elif lost:
                self._in.put_keys(child, list(lost), range(len(lost)))
                self._in.run(self._in.sql(child).unlink(link.column))

    def delete_left(self, job: Job) -> None:
        """Delete what the block's upserts no longer reference; keep the rest."""
        if not job.left:
            return
        plan, rows = job.plan, job.rows
        keys = [rows.keys[i] for i in job.left]
        moved = {rows.keys[i] for i in job.left if is_moved(rows.values[i])}
        self._bequeath(plan, keys, moved)
        self._in.put_keys(plan, keys, [rows.ordinals[i] for i in job.left])
        if self._in.run(job.sql.hold_referenced()):
            held = set(self._in.ordinals(job.sql.held(plan.keys)))
            kept = self._left.setdefault(plan.name, {})
            for i in job.left:
                if rows.ordinals[i] in held:
                    kept[rows.keys[i]] = job.batch, rows.ordinals[i]
                    if rows.ops[i] == "d" and not is_moved(rows.values[i]):
                        self._gone.add((plan.name, rows.keys[i]))
        self._in.written += self._in.run(job.sql.delete(), **ALL)
        self._in.referee.end(plan)

    def _bequeath(self, plan: Plan, keys: Sequence[bytes], moved: Collection[bytes]) -> None:
        """Where an identity was replaced under one source key, children follow the key.

        The source's children did not change, so nothing in the log moves them (a sync_id that was
        updated; moved: such keys). Not those that a delete took with it: the key was given to a new
        row later.
        """
        if not keys or not plan.is_tracked or plan.own_key is None:
            return
        identity, own = plan.target.c[plan.identity[0]], plan.target.c[plan.own_key]
        names = {str(orjson.loads(key)[plan.identity[0]]): key for key in keys}
        taken = {(p.target, link.column) for p, link in carried(self._in, plan)}
        for old, new, is_next in self._in.identities.heirs(plan.name, list(names)):
            is_update = is_next and names[old] in moved
            texts = (sa.literal(name, sa.String) for name in (old, new))
            old_key, new_key = (
                self._in.connection.scalar(sa.select(own).where(identity == value))
                for value in (
                    self._in.server.from_text(text, identity, plan.identity_kind) for text in texts
                )
            )
            if old_key is None or new_key is None:
                continue
            for reference in plan.references:
                of = (reference.child, reference.columns[0])
                if reference.keys == (plan.own_key,) and (is_update or of not in taken):
                    column = reference.child.c[reference.columns[0]]
                    follow = sa.update(reference.child).values({column: new_key})
                    self._follow(follow.where(column == old_key))

    def _follow(self, statement: sa.Update) -> None:
        """What a key of several columns refuses stays: its delete is refused, too."""
        savepoint = self._in.connection.begin_nested()
        try:
            self._in.run(statement)
            savepoint.commit()
        except sa.exc.DBAPIError as error:
            if self._in.server.cause(error) not in (Cause.FOREIGN, Cause.UNIQUE):
                raise
            savepoint.rollback()

    @property
    def are_left(self) -> bool:
        """Whether rows wait for the batch's end."""
        return any(self._left.values())

    def try_left(self) -> set[str]:
        """Delete what waited for the batch's end, children first, cascading as the target does, as
        far as rows may go; the tables whose references wait for their parents now.
        """
        detached = set[str]()
        waiting = [(self._in.plan(name), left) for name, left in self._left.items() if left]
        for plan, left in waiting:
            rows = ((key, (plan.name, key)) for key in left)
            gone = {key: Gone(left[key], row) for key, row in rows if row in self._gone}
            if gone:
                self._orphans.carry(plan, gone)
            # The block that brought the row's new identity came after the one that ended the old.
            moved = [key for key in left if key not in gone]
            self._bequeath(plan, moved, moved)
        for plan, left in waiting:
            self._in.put_keys(plan, list(left), [ordinal for _, ordinal in left.values()])
            self._unlink(plan)
            if self._in.may_lack(plan.name):
                gone_at = [at for key, (_, at) in left.items() if (plan.name, key) in self._gone]
                detached |= detach(self._in, plan, gone_at)
        for plan, left in sorted(waiting, key=lambda pair: -pair[0].rank):
            ordinals = sorted({ordinal for _, ordinal in left.values()})
            written, failed = halve(self._in, ordinals, self._delete(plan))
            self._in.written += written
            self._in.referee.end(plan)
            self._left[plan.name] = {k: at for k, at in left.items() if at[1] in failed}
        return detached

    def finish(self) -> set[str]:
        """The same; raises Refused for what must stay."""
        detached = self.try_left()
        refused = [
            Refusal(name, key, ordinal, "referenced")
            for name, left in self._left.items()
            for key, (_, ordinal) in left.items()
        ]
        if refused:
            raise still_referenced(self._in, refused)
        return detached

    def _delete(self, plan: Plan) -> Callable[[int, int], int]:
        statement = self._in.sql(plan).delete()
        return lambda low, high: self._in.run(statement, low=low, high=high)

    def truncate(self, truncates: Sequence[Truncate]) -> None:
        """Delete the rows that came from the source (those with an identity), children first."""
        plans = [(self._in.plan(t.table), t.ordinal) for t in truncates]
        for plan, ordinal in plans:
            self._left.pop(plan.name, None)
            self._in.parking.forget(plan.name)
            self._in.identities.truncate(plan.name, ordinal)
            self._empty_links(plan)
        for plan, ordinal in sorted(plans, key=lambda pair: -pair[0].rank):
            try:
                self._in.written += self._in.run(self._in.sql(plan).truncate())
            except sa.exc.DBAPIError as error:
                if self._in.server.cause(error) is not Cause.FOREIGN:
                    raise
                raise Poison(
                    f"cannot truncate {plan.name}: rows of other tables reference it "
                    f"{self._in.at(ordinal)}",
                    hint="move or delete those rows in the target",
                ) from error
            self._in.referee.end_all(plan, ordinal)

    def _empty_links(self, plan: Plan) -> None:
        for link in plan.links:
            if link.late:
                empty = {plan.target.c[link.column]: sa.null()}
                self._in.run(sa.update(plan.target).values(empty).where(self._in.sql(plan).ours()))
