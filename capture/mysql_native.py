"""A query's rows -> wire keys and values by the compiled extension; the same bytes as
mysql_chunk.py.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from schemas.kinds import Kind
from schemas.table import Column

if TYPE_CHECKING:
    from headwater_native import ResultEncoder


def result_encoder(
    native: ModuleType, columns: Sequence[Column], identity: Sequence[str], tail: bytes
) -> "ResultEncoder":
    """The extension's encoder for one result whose rows begin with these columns.

    Its `feed(data)` takes in what the socket gave, in pieces of any size, without the interpreter's
    lock. It gives None until the payload has come that ends the rows (EOF or ERR), then that, and
    raises ValueError for what the Python code must judge. `rows()` then gives (keys, values, their
    size in bytes), and the last row's payload.
    """
    names = [c.name for c in columns]
    places = [names.index(n) for n in identity]
    encoder: ResultEncoder = native.ResultEncoder(
        [(c.name, _kind(c.kind)) for c in columns], places, tail
    )
    return encoder


def _kind(kind: Kind) -> str:
    if kind.name == "float":
        return "single" if kind.bits == 32 else "double"
    return "text" if kind.name in ("json", "uuid", "enum") else kind.name
