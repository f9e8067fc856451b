"""The wire form of rows: the only code that writes or parses envelopes (docs/wire.md).

Value:
`{"before":…,"after":…,"op":"c","ts_ms":…,"source":{…,"headwater":{"schema":…,"epoch":…,"run":…,"ordinal":…}}}`.
`source.headwater` always comes last and in this order, so that a reader finds a row's stamp in its
last bytes without parsing the row; row content can never reach there. Key: the identity's columns
as a JSON object.

Sources hand in *fragments*: the JSON text of one wire value (schemas/kinds.py), joined to objects
by `image`.
"""

import math
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from json.encoder import encode_basestring
from typing import Any, NamedTuple

import orjson

from schemas.errors import LogTruncated
from schemas.native import load
from schemas.table import Table

try:
    # The C implementation, which json.encoder does not export under this name.
    from _json import encode_basestring as _quote
except ImportError:
    _quote = encode_basestring

quote: Callable[[str], str] = _quote
"""A string as JSON text."""

VERSION = "0.1.0"

Wire = int | float | str | bool | None
"""A wire value as JSON parsing gives it."""


class _Absent:
    """The value of a column that its row does not carry."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()


class RowStamp(NamedTuple):
    """Where a row belongs: its description's fingerprint, and its place in the log."""

    fingerprint: str
    epoch: int
    run: int
    ordinal: int


_STAMP = re.compile(
    rb'"headwater":\{"schema":"([0-9a-f]*)","epoch":(\d+),"run":(\d+),"ordinal":(\d+)\}\}\}\Z'
)


STAMP_BYTES = 160
"""No stamp is longer, whatever its numbers."""


def stamp_of(value: bytes) -> RowStamp:
    """Read a row's stamp from its last bytes; raises LogTruncated for bytes that Headwater did not
    write.
    """
    found = _STAMP.search(value, max(0, len(value) - STAMP_BYTES))
    if found is None:
        raise LogTruncated(
            "read a row without Headwater's stamp",
            hint="another program writes to this topic: give the source a name of its own",
        )
    return RowStamp(found[1].decode(), int(found[2]), int(found[3]), int(found[4]))


class Stamped(NamedTuple):
    """Rows of one description among others: which they are, their ordinals and their ops."""

    fingerprint: str
    at: Sequence[int]
    ordinals: list[int]
    ops: list[str]


def stamped(values: list[bytes], epoch: int, run: int) -> list[Stamped]:
    """Find one batch's rows among `values`, by description."""
    native = load()
    if native is not None:
        try:
            found = native.stamps(values, epoch, run, STAMP_BYTES)
        except ValueError:
            pass
        else:
            everything = range(len(values))
            return [Stamped(f, everything if at is None else at, *rest) for f, at, *rest in found]
    return [
        Stamped(fingerprint, at, ordinals, ops_of([values[i] for i in at]))
        for fingerprint, at, ordinals in _stamped(values, epoch, run)
    ]


_At = tuple[str, Sequence[int], list[int]]


def _stamped(values: Sequence[bytes], epoch: int, run: int) -> list[_At]:
    """Usually all are of one description and batch: then their ends are taken apart in bulk, with
    a third of the time that a search in each takes.
    """
    found = _STAMP.search(values[0], max(0, len(values[0]) - STAMP_BYTES)) if values else None
    if found is not None and int(found[2]) == epoch and int(found[3]) == run:
        stamp = values[0][found.start() : found.start(4)]
        ends = b"".join([value[value.rfind(_STAMP_BEGINS) :] for value in values]).split(stamp)
        # A row holds no second stamp behind its last one: as many as rows is one in each.
        if len(ends) == len(values) + 1 and not ends[0]:
            try:
                ordinals = orjson.loads(b"[" + b"".join(ends).replace(b"}}}", b",")[:-1] + b"]")
            except orjson.JSONDecodeError:
                ordinals = []
            if len(ordinals) == len(values):
                return [(found[1].decode(), range(len(values)), ordinals)]
    return _stamped_one_by_one(values, epoch, run)


_STAMP_BEGINS = b'"headwater":'


def _stamped_one_by_one(values: Sequence[bytes], epoch: int, run: int) -> list[_At]:
    search = re.compile(
        rb'"headwater":\{"schema":"([0-9a-f]*)","epoch":%d,"run":%d,"ordinal":(\d+)\}\}\}\Z'
        % (epoch, run)
    ).search
    by_schema: dict[bytes, tuple[list[int], list[int]]] = {}
    for i, value in enumerate(values):
        if found := search(value, max(0, len(value) - STAMP_BYTES)):
            at, ordinals = by_schema.setdefault(found[1], ([], []))
            at.append(i)
            ordinals.append(int(found[2]))
    return [(schema.decode(), *lists) for schema, lists in by_schema.items()]


def op_of(value: bytes) -> str:
    """A row's op without parsing the row; see `ops_of`."""
    return ops_of((value,))[0]


def ops_of(values: Iterable[bytes]) -> list[str]:
    """Rows' ops: an unescaped `,"op":"` occurs last at the envelope's top level; seeds lack it."""
    return ["s" if (at := value.rfind(b',"op":"')) < 0 else chr(value[at + 7]) for value in values]


_MOVED = ',"moved":true,"op":"d"'


def is_moved(value: bytes) -> bool:
    """Whether a delete means that its row has another identity from then on: the source's foreign
    keys did nothing to its children.
    """
    return _MOVED.encode() in value[value.rfind(b'"after":null') :]


def after_of(value: bytes) -> dict[str, Any]:
    """The after-image of a row that has one; about twice as fast as parsing the whole envelope.

    No value is an object, and the quotes inside strings are escaped: `"after":{` stands nowhere
    else.
    """
    after: dict[str, Any] = orjson.loads(
        value[value.find(b'"after":{') + 8 : value.rfind(b',"op":"')]
    )
    return after


def image_template(names: Iterable[str]) -> str:
    """A %-template for one row's JSON object: `template % tuple_of_fragments` in the order of
    `names`.
    """
    return "{" + ",".join(quote(name).replace("%", "%%") + ":%s" for name in names) + "}"


def image(names: Sequence[str], fragments: Sequence[str | None]) -> str:
    """One row's JSON object; a fragment of None (not "null") leaves the column out."""
    return (
        "{"
        + ",".join(
            f"{quote(n)}:{f}" for n, f in zip(names, fragments, strict=True) if f is not None
        )
        + "}"
    )


class Tails(NamedTuple):
    """What follows an envelope's images, up to the ordinal; that of a delete, also of one by which
    a row gave up its identity, begins with its null `after`.
    """

    create: bytes
    update: bytes
    delete: bytes
    moved: bytes
    read: bytes


class Envelope:
    """Writes the values of one table for one batch and source commit.

    `place` is the source's own JSON members, each with a leading comma (e.g.
    `,"gtid":"…","file":"…"`); committed_at in microseconds since 1970 UTC. Make one per (table,
    run, commit), not per row.
    """

    __slots__ = ("_create", "_delete", "_moved", "_read", "_tails", "_update")

    def __init__(
        self,
        table: Table,
        *,
        connector: str,
        source: str,
        epoch: int,
        run: int,
        committed_at: int,
        place: str = "",
        snapshot: bool = False,
    ) -> None:
        ts = f'"ts_ms":{committed_at // 1000},"ts_us":{committed_at}'
        names = f'"db":{quote(table.schema)},"table":{quote(table.name)}'
        if table.family == "postgres":
            names = f'"schema":{quote(table.schema)},"table":{quote(table.name)}'
        tail = (
            f',"ts_ms":{committed_at // 1000},"source":{{"version":"{VERSION}",'
            f'"connector":"{connector}","name":{quote(source)},{ts},'
            f'"snapshot":"{"true" if snapshot else "false"}",{names}{place},'
            f'"headwater":{{"schema":"{table.fingerprint}","epoch":{epoch},"run":{run},"ordinal":'
        )
        self._create = ',"op":"c"' + tail
        self._update = ',"op":"u"' + tail
        self._delete = ',"after":null,"op":"d"' + tail
        self._moved = f',"after":null{_MOVED}' + tail
        self._read = ',"op":"r"' + tail
        self._tails: Tails | None = None

    @property
    def tails(self) -> Tails:
        """The constant parts, for whoever writes whole envelopes from them (native/)."""
        if self._tails is None:
            parts = (self._create, self._update, self._delete, self._moved, self._read)
            self._tails = Tails(*(part.encode() for part in parts))
        return self._tails

    def create(self, after: str, ordinal: int) -> bytes:
        """An inserted row; `after` is its JSON object."""
        return f'{{"before":null,"after":{after}{self._create}{ordinal}}}}}}}'.encode()

    def read(self, after: str, ordinal: int) -> bytes:
        """A row of a first copy."""
        return f'{{"before":null,"after":{after}{self._read}{ordinal}}}}}}}'.encode()

    def update(self, before: str, after: str, ordinal: int) -> bytes:
        """A changed row whose identity stays; `before` is "null" where it is not logged."""
        return f'{{"before":{before},"after":{after}{self._update}{ordinal}}}}}}}'.encode()

    def delete(self, before: str, ordinal: int) -> bytes:
        """A deleted row; `before` holds at least the identity's columns."""
        return f'{{"before":{before}{self._delete}{ordinal}}}}}}}'.encode()

    def moved(self, before: str, ordinal: int) -> bytes:
        """A row whose identity an update changed, under the old one; the next row is the new."""
        return f'{{"before":{before}{self._moved}{ordinal}}}}}}}'.encode()


def encode_seed(
    table: Table, source_key: Wire, key: bytes, *, epoch: int, run: int, ordinal: int
) -> bytes:
    """A row of `<source>.identities`: this primary key belonged to this identity before the stream
    began.
    """
    head = orjson.dumps({"table": table.full_name, "source_key": source_key}).decode()[:-1]
    return (
        f'{head},"identity":{key.decode()},"source":{{"headwater":{{"schema":"{table.fingerprint}",'
        f'"epoch":{epoch},"run":{run},"ordinal":{ordinal}}}}}}}'
    ).encode()


def parse(value: bytes) -> dict[str, Any]:
    """One envelope as Python's JSON values; 64-bit integers are exact."""
    parsed: dict[str, Any] = orjson.loads(value)
    return parsed


def columns(values: Iterable[bytes], names: Sequence[str], which: str = "after") -> list[list[Any]]:
    """The named columns of many rows, as one list of wire values per column; ABSENT where a row
    lacks one.
    """
    result: list[list[Any]] = [[] for _ in names]
    appends: list[tuple[str, Callable[[Any], None]]] = [
        (n, r.append) for n, r in zip(names, result, strict=True)
    ]
    for value in values:
        row = orjson.loads(value)[which] or {}
        for name, append in appends:
            append(row.get(name, ABSENT))
    return result


def after_column(values: Sequence[bytes], name: str) -> list[Any]:
    """One column of the after-images of rows that have one, as wire values, without parsing the
    rows; ABSENT where a row lacks it. See `after_of` for why a member's name stands nowhere else.
    """
    # By bytes.find it takes a quarter of the time of parsing; a regex's search takes half.
    member = b",%b:" % quote(name).encode()
    match, size = _VALUE.match, len(member)
    found = [
        value.find(member, value.find(b'"after":{'), value.rfind(b',"op":"')) for value in values
    ]
    texts = [
        match(value, at + size)[0] if at >= 0 else b"null"  # type: ignore[index]
        for value, at in zip(values, found, strict=True)
    ]
    parsed: list[Any] = orjson.loads(b"[%b]" % b",".join(texts))
    if -1 in found:
        # The image's first column, or absent.
        for i, at in enumerate(found):
            if at < 0:
                parsed[i] = after_of(values[i]).get(name, ABSENT)
    return parsed


_VALUE = re.compile(rb'"(?:[^"\\]+|\\.)*"|[^,}]*', re.DOTALL)


# Fragments of values that need care; ints, bools and null are their own text.


def float_fragment(number: float, bits: int) -> str:
    """The shortest JSON number that gives back the same float of `bits`; specials as strings (JSON
    has none).
    """
    if math.isnan(number):
        return '"NaN"'
    if math.isinf(number):
        return '"Infinity"' if number > 0 else '"-Infinity"'
    if bits == 64:
        return repr(number)
    for digits in range(6, 10):
        text = f"{number:.{digits}g}"
        if struct.unpack("f", struct.pack("f", float(text)))[0] == number:
            return repr(float(text))
    return repr(number)


def fraction_trimmed(text: str) -> str:
    """`12:34:56.700` -> `12:34:56.7`, `12:34:56.000` -> `12:34:56`."""
    return text.rstrip("0").rstrip(".") if "." in text else text
