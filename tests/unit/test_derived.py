"""Identities that are computed of a natural key: the same by native/ and by Python, the same for
equal values of different servers, and refused where values have no one text.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import orjson
import pytest

from schemas import native
from schemas.change import Rows
from schemas.codec import Envelope, after_of, image, is_moved, op_of, parse, quote
from schemas.derived import NAMESPACE, derived, derived_rows, identities, in_python, refuse_unfit
from schemas.errors import Misconfigured, Poison
from schemas.kinds import Kind
from schemas.table import Column, Table

TEXT, INT, BOOL = Kind(name="text"), Kind(name="int", bits=64), Kind(name="bool")
AMOUNT = Kind(name="decimal", precision=12, scale=2)


def table(*kinds: Kind, name: str = "users") -> Table:
    """A table as its source reads it, identified by columns k0, k1, …"""
    names = tuple(f"k{i}" for i in range(len(kinds)))
    columns = [Column(name=n, kind=k, nullable=False) for n, k in zip(names, kinds, strict=True)]
    return Table(
        family="mysql",
        schema="shop",
        name=name,
        columns=(*columns, Column(name="after", kind=TEXT, nullable=True)),
        primary_key=names[:1],
        identity=names,
        derived_from=names,
    )


def one(of: Table, *values: Any) -> str | None:
    (found,) = identities(of, [[v] for v in values])
    return found


def test_the_name_that_is_hashed_is_what_the_page_says() -> None:
    assert uuid5(NAMESPACE_URL, "urn:headwater:derived") == NAMESPACE
    ann = str(uuid5(NAMESPACE, "5:users15:ann@example.org"))
    page = Path("docs/identity.md").read_text()
    assert f"`{ann}`" in page
    assert f"`{NAMESPACE}`" in page
    assert one(table(TEXT), "ann@example.org") == ann
    assert one(replace(table(TEXT), schema="public", family="postgres"), "ann@example.org") == ann
    assert one(table(TEXT, INT), "ä", -7) == str(uuid5(NAMESPACE, "5:users2:ä2:-7"))
    # Where one value ends is part of the name.
    assert one(table(TEXT, TEXT), "1:a", "b") != one(table(TEXT, TEXT), "1", "a1:b")


def test_equal_values_of_other_types_give_equal_identities() -> None:
    """T1: a number in any type that holds it, a UUID in either case, a flag as 0 or 1."""
    seven = {one(table(k), v) for k, v in ((INT, 7), (AMOUNT, "7.00"), (TEXT, "7"))}
    assert len(seven) == 1
    assert one(table(AMOUNT), "-0.00") == one(table(INT), 0)
    assert one(table(AMOUNT), "1.50") == one(table(TEXT), "1.5")
    upper = "0C5D0A4E-0000-4000-8000-0000000000AA"
    assert one(table(Kind(name="uuid")), upper) == one(table(TEXT), upper.lower())
    assert one(table(BOOL), True) == one(table(INT), 1)
    # Texts are what they are.
    assert len({one(table(TEXT), text) for text in ("a", "A", "a ", "")}) == 4
    assert one(table(TEXT), None) is None


LETTERS = 'aZ9 _-"\\/\b\f\n\r\t\x00\x1f\x7fäß漢\u2028😀{}:,'


def value_of(rng: random.Random, kind: Kind) -> Any:
    if kind is INT:
        return rng.choice([0, -1, 2**64 - 1, -(2**63), rng.randrange(1000)])
    if kind is BOOL:
        return rng.choice([True, False])
    if kind is AMOUNT:
        return rng.choice(["-0.00", "0.10", "120.00", "-3.05", "10", "100", "NaN", "-Infinity"])
    return "".join(rng.choices(LETTERS, k=rng.randrange(12)))


def test_native_and_python_write_the_same() -> None:
    rng = random.Random(int(os.environ["HEADWATER_SEED"]))
    built = native.load()
    wanted = shutil.which("cargo") and os.environ.get("HEADWATER_NATIVE") != "off"
    assert built is not None or not wanted, "run: make native"
    for _ in range(60):
        of = table(*rng.choices([TEXT, INT, BOOL, AMOUNT], k=rng.randrange(1, 4)))
        envelope = Envelope(of, connector="x", source="shop", epoch=3, run=7, committed_at=1)
        keys, values = [], []
        for n in range(40):
            row = {c.name: value_of(rng, c.kind) for c in of.columns}
            keys.append(image(of.identity, [quoted(row[n]) for n in of.identity]).encode())
            text = image(list(row), [quoted(v) for v in row.values()])
            values.append(
                rng.choice(
                    [
                        envelope.create(text, n),
                        envelope.read(text, n),
                        envelope.update("null", text, n),
                        envelope.update(text, text, n),
                        envelope.delete(text, n),
                        envelope.moved(text, n),
                    ]
                )
            )
        made = derived(of, keys, values)
        assert made == in_python(of, keys, values)
        for key, value, old in zip(*made, values, strict=True):
            found = parse(value)
            there = [found[which] for which in ("before", "after") if found[which] is not None]
            assert there
            assert all(row["sync_id"] == orjson.loads(key)["sync_id"] for row in there)
            assert op_of(value) == op_of(old)
            assert is_moved(value) == is_moved(old) == (b',"moved":true' in old)
            if found["after"] is not None:
                assert after_of(value) == found["after"]


def quoted(value: Any) -> str:
    return quote(value) if isinstance(value, str) else orjson.dumps(value).decode()


def test_a_table_is_described_at_its_source_and_as_it_is_published() -> None:
    inner = table(TEXT, INT)
    outer = inner.published
    assert (outer.identity, outer.derived_from) == (("sync_id",), ("k0", "k1"))
    assert [c.name for c in outer.columns] == ["k0", "k1", "after", "sync_id"]
    assert (outer.at_source, outer.published, inner.at_source) == (inner, outer, inner)
    assert Table.loads(outer.dumps()) == outer
    # What envelopes are stamped with is what the log holds.
    assert inner.fingerprint == outer.fingerprint
    plain = replace(inner, derived_from=())
    assert plain.published is plain.at_source is plain
    assert plain.fingerprint != inner.fingerprint


def test_rows_are_published_with_their_table() -> None:
    of = table(TEXT)
    envelope = Envelope(of, connector="x", source="shop", epoch=3, run=7, committed_at=1)
    rows = Rows(table=of, ops=["c"], ordinals=[0], keys=[b'{"k0":"a"}'], values=[
        envelope.create('{"k0":"a","after":null}', 0)])  # fmt: skip
    made = derived_rows(rows)
    assert made.table == of.published
    assert made.keys == [f'{{"sync_id":"{one(of, "a")}"}}'.encode()]
    plain = replace(rows, table=replace(of, derived_from=()))
    assert derived_rows(plain) is plain


def test_null_has_no_identity_and_some_kinds_have_none() -> None:
    """H106."""
    of = table(TEXT, INT)
    with pytest.raises(Poison, match="k0 or k1 is null"):
        derived(of, [b'{"k0":"a","k1":null}'], [b'{"before":null,"after":{"k0":"a"}}'])
    for name in ("float", "json"):
        with pytest.raises(Misconfigured, match=f"k0 of type {name}"):
            refuse_unfit(table(Kind(name=name, bits=64)))
