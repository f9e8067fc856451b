"""Identities that are computed: a UUID of version 5 (RFC 9562) of a table's name and of the values
of columns that identify its rows at the source (docs/identity.md).

The name that is hashed is the table's name without its schema, then the values in the columns'
order, each as text with its length in bytes and a colon before it: `5:users15:ann@example.org`. The
texts are canonical (schemas/canonical.py), so that a number is one in any type that holds it.
Invariant: nothing but the row's own values goes into it, so that a row has one identity however it
was read: streamed, copied, sent again, or by somebody else's SQL.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from uuid import UUID, uuid5

import orjson

from schemas.canonical import canonical
from schemas.change import Rows
from schemas.codec import Wire, quote
from schemas.errors import Misconfigured, Poison
from schemas.kinds import Kind
from schemas.native import load
from schemas.table import Table

NAMESPACE = UUID("b5b5a08c-39f5-5b25-b27f-7b2b749c129c")
"""Of every derived identity: uuid5(NAMESPACE_URL, "urn:headwater:derived"). It never changes: so
would every identity.
"""

_WITHOUT = ("float", "json")
"""Kinds that servers do not write alike."""
_BEFORE, _AFTER = b'{"before":{', b'"after":{'


def refuse_unfit(table: Table) -> None:
    """Raise Misconfigured where an identity would be derived of what is not one text everywhere."""
    for name in table.derived_from:
        kind = table.by_name[name].kind.name
        if kind in _WITHOUT:
            raise Misconfigured(
                f"found {table.full_name}.{name} of type {kind}, of which no identity is derived",
                hint="servers write such values differently: name other columns, or the primary "
                f'key: identity."{table.full_name}" = {{ derived = "primary_key" }}',
            )


def identities(table: Table, columns: Sequence[Sequence[Wire]]) -> list[str | None]:
    """Rows' identities, given the wire values of each column of `derived_from`; None for a row in
    which one is null.
    """
    forms = [_text_of(table.by_name[name].kind) for name in table.derived_from]
    begins = _part(table.name)
    return [
        None
        if None in row
        else str(
            uuid5(
                NAMESPACE,
                (begins + b"".join(_part(f(v)) for f, v in zip(forms, row, strict=True))).decode(),
            )
        )
        for row in zip(*columns, strict=True)
    ]


def derived_rows(rows: Rows) -> Rows:
    """The rows of a table as its source reads it, as they are published."""
    if not rows.table.derived_from:
        return rows
    refuse_unfit(rows.table)
    keys, values = derived(rows.table, rows.keys, rows.values)
    return replace(rows, table=rows.table.published, keys=keys, values=values)


def derived(
    table: Table, keys: Sequence[bytes], values: Sequence[bytes]
) -> tuple[list[bytes], list[bytes]]:
    """Wire keys of `derived_from`'s columns as keys of the identity, and envelopes with it as the
    first member of each image. Raises Poison for a key that is null in part.
    """
    native = load()
    if native is not None:
        names = table.derived_from
        heads = [
            f"{mark}{quote(n)}:".encode()
            for mark, n in zip("{" + "," * len(names), names, strict=False)
        ]
        decimals = [table.by_name[n].kind.name == "decimal" for n in names]
        begins = NAMESPACE.bytes + _part(table.name)
        try:
            found: tuple[list[bytes], list[bytes]] = native.derived(
                list(keys), list(values), begins, heads, decimals, _member(table)
            )
            return found
        except ValueError:
            pass  # What is not plain sailing: mostly an error, which is said there.
    return in_python(table, keys, values)


def in_python(
    table: Table, keys: Iterable[bytes], values: Iterable[bytes]
) -> tuple[list[bytes], list[bytes]]:
    """The same in Python: the oracle, and what runs without native/."""
    parsed = [orjson.loads(key) for key in keys]
    columns = [[key[name] for key in parsed] for name in table.derived_from]
    found = identities(table, columns)
    if None in found:
        raise Poison(
            f"found a row of {table.full_name} whose {' or '.join(table.derived_from)} is null",
            hint="give every row a value and make the column NOT NULL, or exclude the table",
        )
    members = [_member(table) + b'"' + str(one).encode() + b'"' for one in found]
    return (
        [b"{" + member + b"}" for member in members],
        [_with_member(value, m + b",") for value, m in zip(values, members, strict=True)],
    )


def _member(table: Table) -> bytes:
    (name,) = table.published.identity
    return f"{quote(name)}:".encode()


def _with_member(value: bytes, member: bytes) -> bytes:
    if value.startswith(_BEFORE):
        value = _BEFORE + member + value[len(_BEFORE) :]
    # No value is an object, and the quotes inside strings are escaped: this stands nowhere else.
    return value.replace(_AFTER, _AFTER + member, 1)


def _part(text: str) -> bytes:
    raw = text.encode()
    return b"%d:%b" % (len(raw), raw)


def _text_of(kind: Kind) -> Callable[[Wire], str]:
    form = canonical(kind)
    return lambda value: str(form(value))
