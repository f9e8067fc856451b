"""The seam to a target: rows and their place in the log, stored in one target transaction."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from apply.checked import Checked
from apply.declared import Declaration
from apply.exceptions import TableExceptions
from apply.parked import Parked
from apply.parking import Retried
from apply.placeholders import Placeholder
from apply.recorded import Recorded
from schemas.beat import Beat
from schemas.change import Batch, Offset, Position
from schemas.codec import Wire
from schemas.conflict import ConflictRules
from schemas.finding import Finding
from schemas.kinds import Kind
from schemas.ranges import Compared, Ranges
from schemas.table import Table

MissingParent = Literal["park", "null_then_fix", "placeholder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a source's tables land, and how: plain configuration of one target.

    schemas: source schema -> target schema. tables: source full name -> target full name (wins over
    schemas). Without an entry: on PostgreSQL the schema of the same name if there is one, else the
    default schema; on MySQL and MariaDB the database that the url names,
    on SQLite the file. exclude_columns: patterns
    over source `schema.table.column` that this target leaves alone. primary_keys: "local" (the
    target's own keys, foreign keys translated) or "copy" (the source's values). parked_limit: so
    many changes that the target refuses may be parked; with 0 the first one stops it. conflicts:
    what is done with rows that were changed here too, by pattern over source `schema.table`; the
    first that matches. exceptions: by source full name, how that table differs here.
    missing_parents: what becomes of a row whose parent is not there, by pattern over source
    `schema.table.column`. references: source `schema.table.column` -> what it refers to, where the
    source has no foreign key that says so (apply/declared.py).
    referees: patterns over source `schema.table` of tables whose rows are found through
    headwater_referee. shared: the database in which several environments map theirs.
    """

    schemas: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    exclude_columns: Sequence[str] = ()
    primary_keys: Literal["local", "copy"] = "local"
    create: bool = True
    parked_limit: int = 0
    conflicts: Mapping[str, ConflictRules] = field(default_factory=dict)
    exceptions: Mapping[str, TableExceptions] = field(default_factory=dict)
    missing_parents: Mapping[str, MissingParent] = field(default_factory=dict)
    references: Mapping[str, Declaration] = field(default_factory=dict)
    referees: Sequence[str] = ()
    shared: "SharedAt | None" = None


class SharedAt(NamedTuple):
    """Where a shared referee is, and what it calls this target."""

    url: str
    family: str
    environment: str


State = Literal["reserved", "active", "ended"]


class Mapped(NamedTuple):
    """Which row an environment's key means, by a shared referee: a source's or a target's."""

    environment: str
    table_name: str
    local_key: int
    sync_id: str
    state: State


Exemption = Literal["excluded", "pinned", "none"]
Exempted = Mapping[str, Mapping[bytes, Exemption]]
"""By table's full name and wire key: what single rows are at a target (apply/exempt.py)."""


class Applied(NamedTuple):
    """What a checkpoint says for status."""

    offset: Offset
    position: str
    batch: int
    committed_at: int | None
    applied_at: int
    rows: int


class Paused(NamedTuple):
    """Since when (microseconds since 1970 UTC) a target is paused, and why, as it was given."""

    paused_at: int
    reason: str


class Pair(NamedTuple):
    """A row of the source and a row of the target. sync_id: the pair's own name. Batches: as the
    log numbers them; until_batch: None while it is live.
    """

    source_key: int
    local_key: int
    state: Literal["live", "ended"]
    sync_id: str
    since_batch: int
    until_batch: int | None


class Verified(NamedTuple):
    """What verify last found of one table. Instants: microseconds since 1970 UTC, the source's
    clock.

    verdict, checked_at, differences: of the last whole pass. held_from, held_at, position: when the
    last pass that found it valid began and ended, and where the source then stood. progress: of a
    pass under way, in verify's own form; None between passes.
    """

    table_name: str
    verdict: str | None = None
    checked_at: int | None = None
    differences: int | None = None
    held_from: int | None = None
    held_at: int | None = None
    position: str | None = None
    progress: str | None = None


class Target(Protocol):
    """One target database for one source's stream. Implementations raise schemas.errors only."""

    name: str

    def prepare(self, tables: Sequence[Table], *, dry_run: bool = False) -> list[str]:
        """Make own tables and checkpoint row, create missing tables, adopt present ones; the
        statements. Idempotent.

        Reports every missing or unusable column as one SchemaConflict before anything is written.
        """
        ...

    def tables(self) -> Sequence[Table]:
        """The newest description of every prepared table."""
        ...

    def check(self, tables: Sequence[Table]) -> list[Finding]:
        """Preflight: what `prepare` and `apply` would refuse, without changing anything."""
        ...

    def checkpoint(self) -> Offset | None:
        """Where the target stands; None before the first batch. Raises Operator when never
        prepared, or when a rebuild was not ended.
        """
        ...

    def begin(self, start: Offset, position: Position, batch: int) -> None:
        """Let a checkpoint that stands nowhere yet stand here; one that stands elsewhere stays."""
        ...

    def apply(self, batch: Batch, *, expect: Offset | None) -> int:
        """Apply one whole batch in one transaction: checkpoint first (compare-and-set against
        `expect`), rows, commit.

        Gives the number of rows written. Raises TargetPaused during a pause, Fenced when the
        checkpoint is not `expect`,
        Transient when the transaction may succeed from the (re-read) checkpoint, Poison for a
        change that cannot be applied. Tables whose description was not seen yet are prepared first.
        """
        ...

    def parked(self, *, skipped: bool = False) -> Sequence[Parked]:
        """Every change that waits in the target, in the order of the log; with `skipped`, those
        that were given up too.
        """
        ...

    def retry(self, numbers: Collection[int] | None = None) -> Retried:
        """Apply the changes that wait for these changes' rows (None: for any), each row's in their
        order, and what waited for them. What still fails stays parked.
        """
        ...

    def skip(self, numbers: Collection[int], reason: str) -> None:
        """Give up parked changes; they are kept with the reason. Raises Misconfigured where one is
        not parked.
        """
        ...

    def edit(self, number: int, columns: Mapping[str, Wire]) -> None:
        """Replace columns of a parked change's row, not of its identity; it is applied by `retry`.
        Raises Misconfigured.
        """
        ...

    def placeholders(self) -> Sequence[Placeholder]:
        """The rows that stand for parents which have not come, oldest first."""
        ...

    def remove_placeholders(self, tables: Collection[str] | None = None) -> Sequence[Placeholder]:
        """Delete the placeholders of these tables (None: of all) that no row references any more;
        those that are gone.
        """
        ...

    def conflicts(self) -> Sequence[Recorded]:
        """Every conflict that was decided here, oldest first."""
        ...

    def merge(self, batch: Batch, tables: Collection[str], *, expect: Offset | None) -> int:
        """Like `apply`, of a batch that holds every row of `tables`: rows that came from the source
        and are not in it are deleted, and what is right already is not touched.
        """
        ...

    def rebuild(self, start: Offset | None) -> None:
        """Mark that a rebuild is under way, durably, and begin it at `start` where the target has
        no checkpoint: until `rebuilt`, every other object's `checkpoint` raises Operator.
        """
        ...

    def rebuilt(self) -> None:
        """The rebuild is done; idempotent."""
        ...

    def is_rebuilding(self) -> bool:
        """Whether a rebuild was begun and not ended."""
        ...

    def filled(self, tables: Sequence[Table]) -> list[str]:
        """Full names of those tables that are there and hold rows with an identity."""
        ...

    def checked(self) -> Sequence[Checked]:
        """What the newest checks in the stream found (apply/barrier.py)."""
        ...

    def applied(self) -> Applied | None:
        """The checkpoint as status shows it."""
        ...

    def hold(self) -> bool:
        """Try to hold the target as its applier until `close`; False: another process holds it.

        For courtesy, and kept by no clock: what fences is the checkpoint alone.
        """
        ...

    def pause(self, reason: str) -> None:
        """Let nothing more be applied, durably; a batch that is being written is written to its
        end. Raises Operator when never prepared.
        """
        ...

    def resume(self) -> bool:
        """End the pause; whether there was one."""
        ...

    def paused(self) -> Paused | None:
        """The pause that lasts now."""
        ...

    def beats(self, schemas: Sequence[str]) -> Mapping[str, Beat | None]:
        """By source schema: the newest of the source's beats that came with a dump, or None."""
        ...

    def rows(
        self, table: Table, *, limit: int = 10_000
    ) -> Iterator[tuple[list[str], list[list[Wire]]]]:
        """The mapped columns' names and rows of wire values, in blocks, with foreign
        keys given as the parents' identity (the wire key's text) where they are translated, and
        target-owned primary keys left out. All blocks come from one repeatable-read snapshot that
        starts at the first block.
        """
        ...

    def kinds(self, table: Table) -> Mapping[str, Kind]:
        """For verify: the mapped columns by name, with the kinds that both sides' values compare
        by: the source's, but uuid where text is kept in a uuid column, which has one spelling.
        """
        ...

    def ranges(self, compared: Compared, *, excluded: bool = False) -> Ranges:
        """For verify: the table's rows that came from the source, by ranges of their identity;
        closed by the caller. excluded: also those that are left as they are.
        """
        ...

    def exempt(self, table: str, what: Exemption, keys: Sequence[bytes]) -> None:
        """Say of these rows, by wire key, that they are excluded here, pinned, or neither any more;
        every batch that begins to be written after the return heeds it.
        """
        ...

    def exempted(self) -> Exempted:
        """The rows that are excluded or pinned, by table."""
        ...

    def wanted(self) -> Mapping[str, Sequence[str]]:
        """By table: identities of rows outside its condition that rows here need, and that nobody
        has asked the source for yet (apply/ancestors.py).
        """
        ...

    def was_asked(self, table: str, identities: Sequence[str], number: int) -> None:
        """Note the log's request `number` for these."""
        ...

    def ask_again(self, upto: int, copying: Collection[int]) -> None:
        """Let those be wanted once more that a request up to `upto` was to bring, is not among
        those `copying`, and brought not.
        """
        ...

    def ancestors(self) -> Mapping[str, Sequence[str]]:
        """By table: identities of rows that are here, or are to come, because others need them."""
        ...

    def awaited(self) -> int:
        """How many of them are not here yet."""
        ...

    def pairs(self, table: str, *, ended: bool = False) -> Iterator[Pair]:
        """Which rows of the target are which of the source's, of a table with a referee: the live
        pairs, with `ended` all that ever were. Raises Misconfigured for a table without one.
        """
        ...

    def assign(self, table: str, wanted: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Let these (source key, local key) be pairs from the next batch on; those that ended for
        it, whose rows are the target's own from now on. Raises Misconfigured, with nothing changed.
        """
        ...

    def end_pairs(self, table: str, source_keys: Sequence[int]) -> list[tuple[int, int]]:
        """End the pairs of these source keys; those that were. Their rows stay, as the target's
        own.
        """
        ...

    def mappings(
        self, table: str, source_keys: Sequence[int] = (), *, ended: bool = False
    ) -> Iterator[Mapped]:
        """What the shared referee has of a table, in every environment, the source's key first; of
        these keys of the source, where there are any. Raises Misconfigured without one.
        """
        ...

    def sessions(self) -> list[str]:
        """The names of the last sessions in which changes were applied here, newest last."""
        ...

    def add_session(self, name: str, *, kept: int) -> list[str]:
        """Add a newest one, durably, and forget the oldest; the last `kept` that there are now."""
        ...

    def verified(self) -> list[Verified]:
        """What verify last found, as status shows it."""
        ...

    def keep(self, found: Sequence[Verified], *, only: bool = False) -> None:
        """Keep what verify found of these tables, durably, in one transaction of its own. only:
        there are no other tables any more, what was found of them is forgotten.
        """
        ...

    def drop(self, *, dry_run: bool = False) -> list[str]:
        """Remove our own tables (never the replicated rows); the statements."""
        ...

    def close(self) -> None:
        """Close every connection; idempotent."""
        ...
