"""What the extension offers; the contracts stand at its callers in capture/ and apply/."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

INTERFACE: Final[int]

class _Tails(Protocol):
    """codec.Tails."""

    @property
    def create(self) -> bytes: ...
    @property
    def update(self) -> bytes: ...
    @property
    def delete(self) -> bytes: ...

class ImageDecoder:
    """Rows of a binlog event: capture/binlog_native.py."""

    def __new__(
        cls,
        columns: Sequence[tuple[str | None, bool, int, int, str, Sequence[Any]]],
        identity: Sequence[int],
    ) -> ImageDecoder: ...
    def images(
        self,
        data: bytes,
        start: int,
        ordinal: int,
        tails: _Tails,
        deleted: bool,
        keys: list[bytes],
        values: list[bytes],
    ) -> int: ...
    def updates(
        self,
        data: bytes,
        start: int,
        ordinal: int,
        tails: _Tails,
        ops: list[str],
        keys: list[bytes],
        values: list[bytes],
    ) -> int: ...

class TupleEncoder:
    """Row messages of pgoutput: capture/postgres_native.py."""

    def __new__(
        cls,
        columns: Sequence[tuple[str | None, bool, bool, str]],
        identity: Sequence[int],
    ) -> TupleEncoder: ...
    def encode(
        self,
        messages: list[bytes],
        start: int,
        ordinal: int,
        tails: _Tails,
        ops: list[str],
        keys: list[bytes],
        values: list[bytes],
    ) -> tuple[int, int, bool]: ...

class CopyEncoder:
    """Rows in COPY's text format: capture/postgres_native.py."""

    def __new__(
        cls, columns: Sequence[tuple[str, bool, str]], identity: Sequence[int]
    ) -> CopyEncoder: ...
    def encode(self, data: bytes, tail: bytes) -> tuple[list[bytes], list[bytes], int]: ...

class ResultEncoder:
    """Rows of a query's result: capture/mysql_native.py."""

    def __new__(
        cls, columns: Sequence[tuple[str, str]], identity: Sequence[int], tail: bytes
    ) -> ResultEncoder: ...
    def feed(self, data: bytes) -> bytes | None: ...
    def rows(self) -> tuple[tuple[list[bytes], list[bytes], int], bytes]: ...

class Stager:
    """Lines of a staging table: apply/staging.py. Raises ValueError for rows that it leaves."""

    def __new__(cls, columns: Sequence[tuple[str, str, bool]]) -> Stager: ...
    def lines(
        self,
        values: list[bytes],
        at: Sequence[int],
        ordinals: Sequence[int] | None,
        sets: Sequence[int],
        known: Known | None = None,
        tables: Sequence[int] = (),
    ) -> bytes: ...

class Known:
    """What keys meant lately: apply/known.py."""

    def put(self, table: int, keys: Sequence[str], identities: Sequence[str]) -> None: ...
    def fresh(
        self,
        table: int,
        keys: Sequence[str],
        identities: Sequence[str],
        ordinals: Sequence[int],
    ) -> None: ...
    def settle(self) -> None: ...
    def drop(self, table: int, keys: Sequence[str]) -> None: ...
    def forget(self, table: int) -> None: ...
    def find(
        self, table: int, keys: Sequence[str | None], ordinals: Sequence[int]
    ) -> list[str | None]: ...
    def missed(self) -> dict[int, list[str]]: ...

def stamps(
    values: list[bytes], epoch: int, run: int, longest: int
) -> list[tuple[str, list[int] | None, list[int], list[str]]]:
    """One batch's rows among others: schemas/codec.py. Raises ValueError for what it leaves."""

def derived(
    keys: list[bytes],
    values: list[bytes],
    begins: bytes,
    heads: list[bytes],
    decimals: list[bool],
    member: bytes,
) -> tuple[list[bytes], list[bytes]]:
    """Rows with their computed identities: schemas/derived.py. Raises ValueError for what it
    leaves.
    """
