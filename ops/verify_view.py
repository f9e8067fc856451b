"""The source's side of verify, as a target with exceptions sees it (apply/view.py).

Its rows are read and evaluated here, by the very code that the apply uses: no server's SQL means
the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Protocol

import orjson

from apply.target import Placement, Target
from apply.view import Undecided, View, view_of
from ops.ancestors import keys_of
from schemas.canonical import canonical
from schemas.codec import Wire
from schemas.errors import Operator
from schemas.ranges import ALONE, Compared, Key, Parent, Ranges, SourceRanges, Total


class HasRanges(Protocol):
    """What is asked of a source."""

    def ranges(self, compared: Compared) -> SourceRanges:
        """See capture.source.Source.ranges."""
        ...


class SeenBy:
    """The source as one target sees it."""

    def __init__(self, source: HasRanges, target: Target, placement: Placement) -> None:
        self._source, self._target, self._placement = source, target, placement
        self._exempted = target.exempted()
        has_ancestors = any(e.ancestors for e in placement.exceptions.values())
        self._ancestors = target.ancestors() if has_ancestors else {}

    def ranges(self, compared: Compared) -> SourceRanges:
        """The table's rows that the target is to have, with its columns."""
        view, inner = self._view(compared), self._source.ranges
        parents = {
            name: ParentsHere(self, self._target, parent)
            for name, parent in compared.parents.items()
            if (of := self._view(_identities(parent))) is not None and of.lacks
        }
        if view is None and not parents:
            return inner(compared)
        view = view or View(name=compared.table.full_name, computed={})
        return SeenRanges(inner, compared, view, parents)

    def may_keep(self, compared: Compared) -> bool:
        """Whether the target may have rows of the table that are not to come there."""
        view = self._view(compared)
        return view is not None and (view.on_leave != "delete" or bool(view.excluded))

    def left(self, compared: Compared) -> "HasRanges | None":
        """A source whose rows are also those that may be kept here though they left; None where
        such rows are deleted.
        """
        view = self._view(compared)
        if view is None or view.where is None or view.on_leave == "delete":
            return None
        return _Everything(self._source, replace(view, where=None))

    def _view(self, compared: Compared) -> View | None:
        name = compared.table.full_name
        view, rows = view_of(compared.table, self._placement), self._exempted.get(name, {})
        needed = keys_of(compared.table, self._ancestors.get(name, ()))
        if not rows and not needed:
            return view
        view = view or View(name=name, computed={})
        pinned = frozenset(key for key, what in rows.items() if what == "pinned")
        return replace(
            view,
            excluded=frozenset(key for key, what in rows.items() if what == "excluded"),
            pinned=pinned | needed,
        )


class _Everything:
    def __init__(self, source: HasRanges, view: View) -> None:
        self._source, self._view = source, view

    def ranges(self, compared: Compared) -> SourceRanges:
        return SeenRanges(self._source.ranges, compared, self._view, {})


def _identities(parent: Parent) -> Compared:
    """Of a parent, its rows' identities alone."""
    return Compared(table=parent.table, kinds={parent.identity: parent.kind}, parents={})


class ParentsHere:
    """Which rows of a table that has exceptions a reference may lead to in the target."""

    def __init__(self, source: SeenBy, target: Target, parent: Parent) -> None:
        compared, self._form = _identities(parent), canonical(parent.kind)
        self._sides: list[Ranges] = [source.ranges(compared)]
        if source.may_keep(compared):
            self._sides.append(target.ranges(compared, excluded=True))

    def among(self, references: Sequence[Wire]) -> set[Wire]:
        """Those of these references (the parents' wire keys) that do."""
        given = {r: list(orjson.loads(str(r)).values()) for r in {*references} if r is not None}
        keys, found = list(given.values()), set[Wire]()
        for side in self._sides:
            for at in range(0, len(keys), ALONE):
                found |= {self._form(row[0]) for row in side.rows_of(keys[at : at + ALONE])}
        return {r for r, (value,) in given.items() if self._form(value) in found}

    def close(self) -> None:
        """Close both sides."""
        for side in self._sides:
            side.close()


class SeenRanges:
    """Implements schemas.ranges.SourceRanges over the source's own.

    A translated reference that the condition reads is another value there: such columns are read
    beside the rows, and rows that change meanwhile are looked at again, as all suspects are.
    """

    def __init__(
        self,
        ranges: "Ranging",
        compared: Compared,
        view: View,
        parents: Mapping[str, ParentsHere],
    ) -> None:
        table, self._parents = compared.table, parents
        self._names, self._view, self._identity = compared.names, view, table.identity
        own = {n: k for n, k in compared.kinds.items() if n not in view.computed}
        kinds = {n: table.by_name[n].kind for n in [*view.reads, *table.identity]} | own
        raw = view.reads & compared.parents.keys()
        self._rows = ranges(replace(compared, kinds=kinds))
        self._read = list(kinds)
        self._raw: SourceRanges | None = None
        if raw:
            self._raw_read = [*table.identity, *sorted(raw)]
            of = {n: table.by_name[n].kind for n in self._raw_read}
            self._raw = ranges(replace(compared, kinds=of, parents={}))

    @property
    def sorts_alike(self) -> bool:
        """See Ranges.sorts_alike."""
        return self._rows.sorts_alike

    def total(self, low: Key | None, high: Key | None) -> Total | None:
        """See Ranges.total: rows are read."""
        return None

    def end(self, after: Key | None, rows: int) -> Key | None:
        """See SourceRanges.end; of the source's rows."""
        return self._rows.end(after, rows)

    def rows(self, low: Key | None, high: Key | None) -> Iterator[list[list[Wire]]]:
        """See Ranges.rows."""
        raw: dict[bytes, Mapping[str, Wire]] = {}
        if self._raw is not None:
            for block in self._raw.rows(low, high):
                raw |= self._by_key(block)
        for block in self._rows.rows(low, high):
            yield self._seen(block, raw)

    def rows_of(self, keys: Sequence[Key]) -> list[list[Wire]]:
        """See Ranges.rows_of."""
        raw = self._by_key(self._raw.rows_of(keys)) if self._raw is not None else {}
        return self._seen(self._rows.rows_of(keys), raw)

    def close(self) -> None:
        """See Ranges.close."""
        with closing(self._rows):
            for other in (self._raw, *self._parents.values()):
                if other is not None:
                    other.close()

    def _by_key(self, block: Sequence[Sequence[Wire]]) -> dict[bytes, Mapping[str, Wire]]:
        rows = (dict(zip(self._raw_read, row, strict=True)) for row in block)
        return {orjson.dumps({n: row[n] for n in self._identity}): row for row in rows}

    def _seen(
        self, block: Sequence[Sequence[Wire]], raw: Mapping[bytes, Mapping[str, Wire]]
    ) -> list[list[Wire]]:
        images = [dict(zip(self._read, row, strict=True)) for row in block]
        keys = [orjson.dumps({n: image[n] for n in self._identity}) for image in images]
        read = images
        if self._raw is not None:
            there = [i for i, key in enumerate(keys) if key in raw]
            keys, images = [keys[i] for i in there], [images[i] for i in there]
            read = [image | dict(raw[key]) for key, image in zip(keys, images, strict=True)]
        try:
            return self._made(keys, images, read)
        except Undecided as error:
            raise Operator(
                f"cannot tell whether a row of {self._view.name} belongs to the target: {error}",
                hint=error.hint,
            ) from error

    def _made(
        self,
        keys: Sequence[bytes],
        images: Sequence[dict[str, Wire]],
        read: Sequence[dict[str, Wire]],
    ) -> list[list[Wire]]:
        columns = {n: [image[n] for image in read] for n in self._view.reads}
        admitted = self._view.admits(keys, columns)
        at = [
            i
            for i, (key, stays) in enumerate(zip(keys, admitted, strict=True))
            if stays and key not in self._view.excluded
        ]
        made = self._view.values({n: [v[i] for i in at] for n, v in columns.items()}, len(at))
        found = {n: made[n] if n in made else [images[i][n] for i in at] for n in self._names}
        for name, parents in self._parents.items():
            # A reference to a row that is not here is NULL here.
            there = parents.among(found[name])
            found[name] = [v if v in there else None for v in found[name]]
        return list(map(list, zip(*found.values(), strict=True)))


class Ranging(Protocol):
    """Opens one table's ranges."""

    def __call__(self, compared: Compared) -> SourceRanges: ...
