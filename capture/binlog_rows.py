"""Row events -> wire keys and values: one decoder per description, generated Python.

Measured (two cores, ten columns): python-mysql-replication's rows cost 37-45 µs, a generated
decoder about 7, as nothing per row is an object and nothing per column a call that can be inlined.
"""

from collections.abc import Callable, Sequence
from struct import Struct, error
from typing import Any, Protocol

from capture.binlog_columns import SHARED, ColumnCode
from schemas.codec import Envelope, quote
from schemas.errors import Unsupported

MISFITS = (UnicodeDecodeError, IndexError, KeyError, ValueError, error)
"""What decoding raises for bytes that do not fit their description."""


class Decoder(Protocol):
    """Decodes the rows of one description; both methods append, and give the next ordinal.

    Raises Unsupported for rows that do not fit it.
    """

    def images(
        self,
        data: bytes,
        start: int,
        ordinal: int,
        envelope: Envelope,
        op: str,
        keys: list[bytes],
        values: list[bytes],
    ) -> int:
        """The rows of an insert ("c") or delete ("d")."""
        ...

    def updates(
        self,
        data: bytes,
        start: int,
        ordinal: int,
        envelope: Envelope,
        ops: list[str],
        keys: list[bytes],
        values: list[bytes],
    ) -> int:
        """The rows of an update. A changed identity is a delete of the old one, then a create of
        the new.
        """
        ...


class RowDecoder:
    """A Decoder in generated Python: the oracle, and what runs without native/.

    names: the columns in order; codes without lines are stepped over. Every image must hold every
    column.
    """

    def __init__(
        self,
        table: str,
        names: Sequence[str],
        nullable: Sequence[bool],
        codes: Sequence[ColumnCode],
        identity: Sequence[str],
    ) -> None:
        self.source = _source(names, nullable, codes, identity)
        scope: dict[str, Any] = dict(SHARED)
        for i, code in enumerate(codes):
            scope.update({name.replace("@", str(i)): value for name, value in code.names.items()})
        scope.update({f"S_{f}": Struct("<" + f).unpack_from for f in _formats(codes)})
        exec(compile(self.source, f"<rows of {table}>", "exec"), scope)
        self._table = table
        self._images: Callable[..., int] = scope["images"]
        self._updates: Callable[..., int] = scope["updates"]

    def images(
        self,
        data: bytes,
        start: int,
        ordinal: int,
        envelope: Envelope,
        op: str,
        keys: list[bytes],
        values: list[bytes],
    ) -> int:
        write = envelope.create if op == "c" else envelope.delete
        return self._call(self._images, data, start, ordinal, write, keys, values)

    def updates(
        self,
        data: bytes,
        start: int,
        ordinal: int,
        envelope: Envelope,
        ops: list[str],
        keys: list[bytes],
        values: list[bytes],
    ) -> int:
        writes = (envelope.update, envelope.moved, envelope.create)
        return self._call(self._updates, data, start, ordinal, *writes, ops, keys, values)

    def _call(self, function: Callable[..., int], *args: Any) -> int:
        try:
            return function(*args)
        except MISFITS as cause:
            raise misfit(self._table, cause) from None  # its message holds the row's values


def misfit(table: str, cause: Exception) -> Unsupported:
    """The error for a row that its description does not fit."""
    return Unsupported(
        f"found a row of {table} in the binlog that does not fit its description "
        f"({type(cause).__name__})",
        hint="copy the table anew; report it if the table was not altered",
    )


def _formats(codes: Sequence[ColumnCode]) -> set[str]:
    """Every struct format that either body may use."""
    singles = {code.code for code in codes if code.code}
    return singles | {"".join(codes[i].code for i in run) for run in _runs(codes)}


def _runs(codes: Sequence[ColumnCode]) -> list[list[int]]:
    """Stretches of neighbouring fixed columns, which one call unpacks."""
    runs: list[list[int]] = []
    for i, code in enumerate(codes):
        if code.code and runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        elif code.code:
            runs.append([i])
    return runs


def _source(
    names: Sequence[str],
    nullable: Sequence[bool],
    codes: Sequence[ColumnCode],
    identity: Sequence[str],
) -> str:
    used = [i for i, code in enumerate(codes) if code.lines]
    image = _template((names[i], f"c{i}") for i in used)
    key = _template((names[i], f"c{i}") for i in (names.index(n) for n in identity))
    read = _image(nullable, codes)
    images = [
        "def images(d,p,o,write,keys,values):",
        " e=len(d);key=keys.append;value=values.append",
        " while p<e:",
        *("  " + line for line in read),
        f"  key({key}.encode());value(write({image},o))",
        "  o+=1",
        " if p!=e: raise IndexError",
        " return o",
    ]
    updates = [
        "def updates(d,p,o,update,moved,create,ops,keys,values):",
        " e=len(d);key=keys.append;value=values.append;op=ops.append",
        " while p<e:",
        *("  " + line for line in read),
        f"  before={image};old={key}",
        *("  " + line for line in read),
        f"  after={image};new={key}",
        "  if old==new:",
        "   op('u');key(new.encode());value(update(before,after,o));o+=1",
        "  else:",
        "   op('d');key(old.encode());value(moved(before,o))",
        "   op('c');key(new.encode());value(create(after,o+1));o+=2",
        " if p!=e: raise IndexError",
        " return o",
    ]
    return "\n".join(images + updates) + "\n"


def _template(pairs: Any) -> str:
    """An f-string that writes a JSON object; names may hold any character."""
    body = ",".join(quote(n).replace("{", "{{").replace("}", "}}") + f":{{{c}}}" for n, c in pairs)
    return "f" + repr("{{" + body + "}}")


def _image(nullable: Sequence[bool], codes: Sequence[ColumnCode]) -> list[str]:
    """Lines that read one image at `p` into c0, c1, …: a fast body for rows without NULL."""
    size = (len(codes) + 7) // 8
    bits = sum(1 << i for i, null in enumerate(nullable) if null)
    if not bits:
        return [f"p+={size}", *_whole(codes)]
    nulls = "|".join(f"d[p+{k}]<<{8 * k}" if k else "d[p]" for k in range(size))
    if size > 4:
        nulls = f"fb(d[p:p+{size}],'little')"
    return [
        f"n={nulls};p+={size}",
        f"if n&{bits}:",
        *(" " + line for line in _with_nulls(nullable, codes)),
        "else:",
        *(" " + line for line in _whole(codes)),
    ]


def _whole(codes: Sequence[ColumnCode]) -> list[str]:
    lines: list[str] = []
    runs = {run[0]: run for run in _runs(codes)}
    for i, code in enumerate(codes):
        if i in runs:
            format_ = "".join(codes[k].code for k in runs[i])
            targets = "".join(f"c{k}," for k in runs[i])
            lines.append(f"{targets}=S_{format_}(d,p);p+={Struct('<' + format_).size}")
            for k in runs[i]:
                lines += _convert(k, codes[k], f"c{k}")
        elif not code.code:
            lines += _prefixed(i, code)
    return lines


def _with_nulls(nullable: Sequence[bool], codes: Sequence[ColumnCode]) -> list[str]:
    lines: list[str] = []
    for i, code in enumerate(codes):
        if code.code:
            one = [f"c{i},=S_{code.code}(d,p);p+={Struct('<' + code.code).size}"]
            one += _convert(i, code, f"c{i}")
        else:
            one = _prefixed(i, code)
        if nullable[i]:
            lines += [f"if n&{1 << i}: c{i}='null'", "else:", *(" " + line for line in one)]
        else:
            lines += one
    return lines


def _prefixed(i: int, code: ColumnCode) -> list[str]:
    length = "|".join(f"d[p+{k}]<<{8 * k}" if k else "d[p]" for k in range(code.prefix))
    return [f"l={length};p+={code.prefix}", *_convert(i, code, "d[p:p+l]"), "p+=l"]


def _convert(i: int, code: ColumnCode, raw: str) -> list[str]:
    if code.lines == ("c=x",):
        return [] if raw == f"c{i}" else [f"c{i}={raw}"]
    lines = [f"x={raw}"] if code.lines else []
    return lines + [_named(line, i) for line in code.lines]


def _named(line: str, i: int) -> str:
    """Give the column's own names to `c`, which the line assigns, and to names with `@`."""
    return line.replace("c=", f"c{i}=", 1).replace("@", str(i))
