"""What sources' keys mean now, as far as it was met lately: a bounded memory beside
`headwater_identity`, so that most references need no look there.

It lasts as long as the connection whose writes it follows: any error ends both, and what was not
committed is not remembered. Only the applier that holds the checkpoint changes
`headwater_identity`. Local keys are never kept: rows take them from the parents' table when they
are written.
"""

from collections.abc import Sequence
from typing import Protocol

from schemas.native import load

ENTRIES = 200_000
"""In each of two generations, in pure Python; the compiled one keeps more (native/src/known.rs)."""


class Known(Protocol):
    """Tables are numbered by whoever asks. A key that is not found is noted until `missed`.

    fresh: what this block's rows say, each from its ordinal on; `settle`, at the next block, makes
    it unconditional, since later blocks have later ordinals.
    """

    def put(self, table: int, keys: Sequence[str], identities: Sequence[str]) -> None:
        """Keys that have meant these identities since before the block."""
        ...

    def fresh(
        self,
        table: int,
        keys: Sequence[str],
        identities: Sequence[str],
        ordinals: Sequence[int],
    ) -> None:
        """Keys that mean these identities from these ordinals of the block on."""
        ...

    def settle(self) -> None:
        """A new block begins."""
        ...

    def drop(self, table: int, keys: Sequence[str]) -> None:
        """These keys ended, or mean something else."""
        ...

    def forget(self, table: int) -> None:
        """All keys of the table ended."""
        ...

    def find(
        self, table: int, keys: Sequence[str | None], ordinals: Sequence[int]
    ) -> list[str | None]:
        """What each key meant at that ordinal of the block; None where that is not known."""
        ...

    def missed(self) -> dict[int, list[str]]:
        """The keys that were not found since the last call, each once, by table."""
        ...


def made() -> Known:
    """An empty memory: the compiled one, where it is built."""
    native = load()
    known: Known = KnownHere() if native is None else native.Known()
    return known


class KnownHere:
    """Implements Known; the compiled one's oracle."""

    def __init__(self, entries: int = ENTRIES) -> None:
        self._entries = entries
        self._young: dict[tuple[int, str], str] = {}
        self._old: dict[tuple[int, str], str] = {}
        self._fresh: dict[tuple[int, str], tuple[str, int]] = {}
        self._missed: dict[int, dict[str, None]] = {}

    def put(self, table: int, keys: Sequence[str], identities: Sequence[str]) -> None:
        for key, identity in zip(keys, identities, strict=True):
            if len(self._young) >= self._entries:
                self._young, self._old = {}, self._young
            self._young[table, key] = identity

    def fresh(
        self,
        table: int,
        keys: Sequence[str],
        identities: Sequence[str],
        ordinals: Sequence[int],
    ) -> None:
        for key, identity, ordinal in zip(keys, identities, ordinals, strict=True):
            self._fresh[table, key] = (identity, ordinal)

    def settle(self) -> None:
        fresh, self._fresh = self._fresh, {}
        for (table, key), (identity, _) in fresh.items():
            self.put(table, [key], [identity])

    def drop(self, table: int, keys: Sequence[str]) -> None:
        for key in keys:
            for known in (self._young, self._old, self._fresh):
                known.pop((table, key), None)

    def forget(self, table: int) -> None:
        self._young = {k: v for k, v in self._young.items() if k[0] != table}
        self._old = {k: v for k, v in self._old.items() if k[0] != table}
        self._fresh = {k: v for k, v in self._fresh.items() if k[0] != table}

    def find(
        self, table: int, keys: Sequence[str | None], ordinals: Sequence[int]
    ) -> list[str | None]:
        return [
            None if key is None else self._look(table, key, ordinal)
            for key, ordinal in zip(keys, ordinals, strict=True)
        ]

    def missed(self) -> dict[int, list[str]]:
        missed, self._missed = self._missed, {}
        return {table: list(keys) for table, keys in missed.items()}

    def _look(self, table: int, key: str, ordinal: int) -> str | None:
        at = table, key
        if at in self._fresh:
            identity, since = self._fresh[at]
            found = identity if ordinal >= since else None
        else:
            found = self._young.get(at) or self._old.get(at)
        if found is None:
            self._missed.setdefault(table, {})[key] = None
        return found
