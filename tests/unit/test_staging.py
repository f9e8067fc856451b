"""Lines of a staging table: the compiled maker and the Python code give the same bytes."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable, Sequence
from random import Random
from typing import Any
from uuid import UUID

import orjson
import pytest
import sqlalchemy as sa

from apply import fields
from apply.fold import fold
from apply.known import Known, KnownHere
from apply.plan import Link, Plan, Taken
from apply.staging import staged
from apply.transaction import Job
from schemas.change import Rows
from schemas.codec import Envelope
from schemas.errors import Poison
from schemas.kinds import Kind
from schemas.native import load
from schemas.table import Column, Table

LETTERS = 'aZ09 "\\/\n\t\r\0\b\f\x1f\x7fäß€😀\u2028,:{}[]Ñ'


def _text(random: Random) -> str:
    if random.random() < 0.5:
        return f"row {random.randrange(10**6)}"
    return "".join(random.choices(LETTERS, k=random.randrange(40)))


def _int(random: Random) -> int:
    bits = random.choice((1, 8, 31, 63))
    return random.choice(
        (0, -1, 2**63 - 1, 2**64 - 1, -(2**63), random.randrange(-(2**bits), 2**bits))
    )


def _float(random: Random) -> Any:
    some = (0.0, -0.0, 1e16, 1e-5, 5e-324, 1.7976931348623157e308, 1 / 3, "NaN", "-Infinity")
    number = random.uniform(-1, 1) * 10.0 ** random.randrange(-320, 308)
    return random.choice((*some, number, round(number, 2)))


def _single(random: Random) -> Any:
    some = (0.0, -0.0, 3.4028235e38, 1e-45, 0.1, "Infinity", 16777216.0)
    return random.choice((*some, round(random.uniform(-1e6, 1e6), random.randrange(6))))


def _document(random: Random) -> str:
    value = {_text(random): random.choice((_text(random), _float(random), _int(random), None))}
    return orjson.dumps(value).decode()


def _instant(random: Random) -> str:
    clock = f"2026-11-{random.randrange(10, 29)}T09:00:{random.randrange(10, 60)}.5"
    return random.choice((clock, clock + "Z"))


def _uuid(random: Random) -> str:
    text = str(UUID(bytes=random.randbytes(16)))
    return text.upper() if random.random() < 0.5 else text


MAKERS: dict[str, Callable[[Random], Any]] = {
    "plain": lambda random: random.choice((_int, _float, _instant))(random),
    "text": _text,
    "flag": lambda random: random.choice((True, False, 0, 1, 127)),
    "single": _single,
    "single, not -0.0": _single,
    "plain, not -0.0": _float,
    "hexadecimal": lambda random: b64encode(random.randbytes(random.randrange(9))).decode(),
    "hexadecimal with prefix": lambda random: b64encode(random.randbytes(3)).decode(),
    "uuid of bytes": lambda random: b64encode(random.randbytes(16)).decode(),
    "bytes of uuid": _uuid,
    "bytes of uuid with prefix": _uuid,
    "without zone": _instant,
    "json in doubles": _document,
}


class Judge:
    """As much of a transaction as staging needs: for errors, and for what keys meant.

    known: its keys are looked up nowhere else, as `recall` would.
    """

    def __init__(self, known: Known | None = None) -> None:
        self.identities, self.session, self._known = self, self, known

    def memory(self, batch: int) -> Known | None:
        return self._known

    def number(self, name: str) -> int:
        return 3

    def recall(self) -> bool:
        return False

    def at(self, ordinal: int, batch: int) -> str:
        return f"(batch {batch}, ordinal {ordinal})"

    def unfit(self, job: Job, column: str | None, index: int) -> Poison:
        return Poison(f"{column} {job.rows.ordinals[index]}", hint="hint")


def _plan(
    names: dict[str, fields.Fields], linked: str | None = None, named: fields.Fields | None = None
) -> Plan:
    kind = Kind(name="text")
    table = Table(
        family="mysql",
        schema="app",
        name="t",
        columns=tuple(Column(name=n, kind=kind, nullable=True) for n in names),
        primary_key=("k",),
        identity=("k",),
    )
    link = Link(
        column=linked or "",
        parent_name="app.p",
        parent=None,
        parent_key="id",
        parent_identity="k",
        identity_kind=kind,
        translated=True,
        late=False,
        nullable=True,
        named=named,
    )
    return Plan(
        number=0,
        rank=0,
        source=table,
        target=sa.Table("t", sa.MetaData()),
        taken=[
            Taken(name=n, column=sa.Column(n, sa.Text), kind=kind, family="text", fields=f)
            for n, f in names.items()
        ],
        own_key=None,
        links=[link] if linked else [],
        references=[],
        uniques=[],
        is_guarded=True,
    )


def _job(plan: Plan, images: list[dict[str, Any]], *, blanks: bool = False) -> Job:
    envelope = Envelope(
        plan.source, connector="mysql", source="shop", epoch=1, run=1, committed_at=1
    )
    option = orjson.OPT_INDENT_2 if blanks else 0
    texts = [orjson.dumps(image, option=option).decode() for image in images]
    values = [
        envelope.update(texts[i - 1], texts[i], i) if i % 2 else envelope.create(texts[i], i)
        for i in range(len(images))
    ]
    rows = Rows(
        table=plan.source,
        ops=["cu"[i % 2] for i in range(len(images))],
        ordinals=[7 * i for i in range(len(images))],
        keys=[orjson.dumps(i) for i in range(len(images))],
        values=values,
    )
    folded = fold(rows)
    return Job(plan=plan, sql=None, rows=rows, folded=folded, deletes=[], batch=1)  # type: ignore[arg-type]


def _both(plan: Plan, job: Job, known: Sequence[Known | None] = (None, None)) -> tuple[Any, Any]:
    """What the fast way gives, and what Python alone gives: lines and missed keys, or an error's
    text.
    """
    results = []
    for stager, one in zip((plan.stager, None), known, strict=True):
        plan.__dict__["stager"] = stager
        try:
            lines = staged(Judge(one), job)  # type: ignore[arg-type]
            missed = one.missed() if one is not None else {}
            found = {number: sorted(keys) for number, keys in missed.items()}
            results.append((lines, job.new, job.whole, found))
        except Poison as error:
            results.append(str(error))  # type: ignore[arg-type]
    return results[0], results[1]


def test_the_compiled_maker_and_python_give_the_same_lines() -> None:
    """30,000 rows of random tables; a value of every form, NULL, absent and escaped."""
    random = Random(os.environ["HEADWATER_SEED"])
    for _ in range(120):
        kinds = random.sample(sorted(fields.NATIVE.values()), random.randrange(1, 7))
        forms = {v: k for k, v in fields.NATIVE.items()}
        odd = random.choice(("", ' "\\%', "ü\n"))
        names = {"k": fields.text} | {f"{name}{odd}": forms[name] for name in kinds}
        plan = _plan(names, linked="k" if random.random() < 0.2 else None)
        images = []
        for number in range(250):
            image = {"other": [], "k": str(number)} | {
                f"{name}{odd}": None if random.random() < 0.1 else MAKERS[name](random)
                for name in kinds
            }
            del image["other"]
            if random.random() < 0.02:
                image.pop(random.choice(sorted(image)))
            if random.random() < 0.1:
                image = dict(random.sample(sorted(image.items()), len(image)))
            images.append(image)
        # What the compiled maker leaves to Python, it leaves for the whole call: small calls, then.
        for at in range(0, 250, 5):
            fast, slow = _both(plan, _job(plan, images[at : at + 5], blanks=random.random() < 0.1))
            assert fast == slow


def test_the_compiled_maker_and_python_stage_the_same_identities() -> None:
    """Keys of every form; what they meant, from which ordinal on, and what was missed."""
    native, random = load(), Random(os.environ["HEADWATER_SEED"])
    if native is None:
        return
    keys = [0, 7, 10**15, 2**63, -4, "10", "a", "é\t\\", '"', "010", None]
    named = {
        fields.plain: ["12", "6a1f0000-0000-4000-8000-00000000abcd", "6A1F"],
        fields.text: ["é\t\\", "6a1f0000-0000-4000-8000-00000000abcd", "x\ny"],
        fields.hexadecimal: ["AAH/"],
        fields.hexadecimal_with_prefix: ["AAE="],
    }
    for _ in range(100):
        form = random.choice(list(named))
        plan = _plan({"k": fields.text, "parent": fields.plain}, linked="parent", named=form)
        known: list[Known] = [native.Known(), KnownHere()]
        for _ in range(random.randrange(12)):
            of = [str(key) for key in keys if key is not None and random.random() < 0.4]
            identities = [random.choice(named[form]) for _ in of]
            at = [random.randrange(60) for _ in of]
            call = random.choice(("put", "fresh", "drop", "settle", "forget", "other"))
            for one in known:
                if call == "put":
                    one.put(3, of, identities)
                elif call == "fresh":
                    one.fresh(3, of, identities, at)
                elif call == "drop":
                    one.drop(3, of)
                elif call == "settle":
                    one.settle()
                elif call == "forget":
                    one.forget(3)
                else:
                    one.put(4, of, ["other"] * len(of))
        images = [{"k": str(n), "parent": random.choice(keys)} for n in range(9)]
        fast, slow = _both(plan, _job(plan, images), known)
        assert fast == slow
        assert [one.missed() for one in known] == [{}, {}]


def _memories() -> list[tuple[Known, int]]:
    """Each with a number of keys, of which it holds the newest half at least."""
    native = load()
    return [(KnownHere(entries=10), 20), *([(native.Known(), 1_835_008)] if native else [])]


def test_a_bounded_memory_forgets_the_oldest_keys_and_nothing_else() -> None:
    for known, size in _memories():
        for number in range(0, 2 * size, size // 4):
            part = [str(n) for n in range(number, number + size // 4)]
            known.put(0, part, [f"{int(n):08x}-0000-4000-8000-000000000000" for n in part])
        held = [2 * size - 1, 2 * size - size // 2]
        found = known.find(0, [*map(str, held), "0"], [0, 0, 0])
        assert found == [*(f"{n:08x}-0000-4000-8000-000000000000" for n in held), None]
        assert known.missed() == {0: ["0"]}


ORDINARY: list[tuple[fields.Fields, Any, str]] = [
    (fields.plain, 12, "12"),
    (fields.plain, -(2**63), str(-(2**63))),
    (fields.plain, 0.5, "0.5"),
    (fields.plain, "2026-11-22", "2026-11-22"),
    (fields.text, "a\tb\\c\nd\0é😀", "a\\tb\\\\c\\nd\\\0é😀"),
    (fields.flag, True, "1"),
    (fields.single, 0.1, "0.10000000149011612"),
    (fields.hexadecimal, "AAH/", "0001ff"),
    (fields.hexadecimal_with_prefix, "AAE=", "\\\\x0001"),
    (fields.without_zone, "2026-11-22T09:00:00Z", "2026-11-22T09:00:00"),
    (fields.json_in_doubles, '{"a": [1, "é\\\\"]}', '{"a": [1, "é\\\\\\\\"]}'),
]


@pytest.mark.parametrize(("form", "value", "field"), ORDINARY)
def test_ordinary_values_are_not_left_to_python(
    form: fields.Fields, value: Any, field: str
) -> None:
    plan = _plan({"k": fields.text, "v": form})
    job = _job(plan, [{"k": "1", "v": value}, {"k": "2", "v": None}, {"k": "3"}])
    fast, slow = _both(plan, job)
    assert fast == slow
    expected = f"0\t-1\t1\t{field}\n7\t0\t2\t\\N\n14\t-1\t3\t\\N\n".encode()
    assert fast[0].data == expected
    if plan_stager := _plan({"k": fields.text, "v": form}).stager:
        values = job.rows.values
        sets = [-1, 0, -1]
        assert plan_stager.lines(values, [0, 1, 2], [0, 7, 14], sets) == expected
        alone = b"".join(line.split(b"\t", 2)[2] for line in expected.splitlines(keepends=True))
        assert plan_stager.lines(values, [0, 1, 2], None, sets) == alone


def test_hostile_bytes_are_an_error_and_never_a_panic() -> None:
    random = Random(os.environ["HEADWATER_SEED"])
    forms = {f"c{i}": form for i, form in enumerate(fields.NATIVE)}
    stager = _plan({"k": fields.text} | forms, linked="c0").stager
    if stager is None:
        return
    image = {"k": "1", "c0": 1, "c1": "ä\n", "c2": True, "c3": 0.1, "c6": "AAE=", "c9": "{}"}
    good = orjson.dumps({"before": image, "after": image, "op": "u"})
    for _ in range(10_000):
        value = bytearray(good)
        for _ in range(random.randrange(1, 4)):
            at = random.randrange(len(value))
            value[at : at + random.randrange(3)] = random.choice(
                (b"", b'"', b"\\", b"{", b"}", b",", b":", b"-", b"\\u", b"\xff", b"e9", b"\x00")
            )
        cut = bytes(value[: random.randrange(len(value) + 1)])
        for some in (bytes(value), cut):
            try:
                data = stager.lines([some], [0], [0], [0])
            except ValueError:
                continue
            assert data.count(b"\t") >= len(forms) + 2
    with pytest.raises(IndexError):
        stager.lines([good], [1], [0], [0])
    with pytest.raises(TypeError):
        stager.lines(["text"], [0], [0], [0])
