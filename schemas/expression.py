"""Conditions and values over one row's columns, from the text of a small part of SQL.

Parsed by sqlglot (adr/0013), then only what stands here is taken; nothing is ever run as code.
Evaluated column by column over wire values, with SQL's NULL. Text compares exactly, code point by
code point, whatever a server's collation says: so every server and verify find the same rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from schemas.codec import Wire
from schemas.compare import Comparison, Unfit, comparison, like
from schemas.kinds import Kind

Columns = Mapping[str, Sequence[Any]]
"""Wire values by column, all of one length."""
Values = Sequence[Any]
_Of = Callable[[Columns, int], Values]

GRAMMAR = (
    "= <> < <= > >= between in like is null, and or not, lower() upper() trim() concat() "
    "coalesce() ||, column names, 'text', numbers, true, false, null"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """columns: those it reads. kind: of its values; bool is a condition."""

    columns: frozenset[str]
    kind: Kind
    of: _Of
    """Columns and the number of rows -> a wire value for each row. Raises Unfit for a value that
    cannot be compared (NaN, a date before Christ)."""

    def matches(self, columns: Columns, rows: int) -> list[bool]:
        """For each row whether the condition is true: neither false nor unknown."""
        return [bool(v) for v in self.of(columns, rows)]


def bind(text: str, kinds: Mapping[str, Kind]) -> Expression:
    """The expression over columns of these kinds; raises Unfit, which says what is wrong."""
    return _bound(parse(text), kinds)


def condition(text: str, kinds: Mapping[str, Kind]) -> Expression:
    """Like `bind`, of something that is true or false."""
    bound = bind(text, kinds)
    if bound.kind.name != "bool":
        raise Unfit(f"is no condition: it gives {bound.kind.name}")
    return bound


@lru_cache(maxsize=1024)
def parse(text: str) -> Any:
    """sqlglot's tree; raises Unfit where the text is not one expression."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        tree = sqlglot.parse_one(text, into=sqlglot.exp.Condition)
    except (SqlglotError, RecursionError) as error:
        raise Unfit(f"cannot be read; it may hold: {GRAMMAR}") from error
    _refuse_unknown(tree)
    return tree


def _refuse_unknown(tree: Any) -> None:
    for node in tree.walk():
        name = type(node).__name__
        if name not in _MAKE and name not in ("Identifier", "Var"):
            raise Unfit(f"holds {name.lower()}, which is not among: {GRAMMAR}")
        if extra := {k for k, v in node.args.items() if v} - _ARGUMENTS:
            raise Unfit(f"holds {name.lower()} with {', '.join(sorted(extra))}")


_ARGUMENTS = {"this", "expression", "expressions", "low", "high", "is_string", "quoted"} | {
    "negate",  # of like: newer versions have NOT LIKE so, older ones a NOT around it
    # What sqlglot notes of the dialect that it reads.
    "safe",
    "coalesce",
}


def _bound(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    return _MAKE[type(node).__name__](node, kinds)


def _column(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    name = node.name
    if name not in kinds:
        raise Unfit(f"names a column {name} that the table does not have")
    return Expression(columns=frozenset({name}), kind=kinds[name], of=lambda c, rows: c[name])


def _literal(kind: Kind, value: Wire) -> Expression:
    def of(columns: Columns, rows: int) -> Values:
        return [value] * rows

    return _Literal(columns=frozenset(), kind=kind, of=of, value=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Literal(Expression):
    value: Wire


def _text(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    if node.is_string:
        return _literal(Kind(name="text", length=len(node.this)), node.this)
    return _number(node.this)


def _number(digits: str) -> Expression:
    if digits.lstrip("-").isdigit():
        return _literal(Kind(name="int", bits=64), int(digits))
    whole, _, fraction = digits.partition(".")
    if not (whole.lstrip("-") + fraction).isdigit():
        raise Unfit(f"holds a number that is not written plainly: {digits}")
    scale = len(fraction)
    precision = len(whole.lstrip("-")) + scale
    return _literal(Kind(name="decimal", precision=precision, scale=scale), digits)


def _negative(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    inner = node.this
    if type(inner).__name__ != "Literal" or inner.is_string:
        raise Unfit("holds a minus that is not a number's")
    return _number(f"-{inner.this}")


def _flag(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    return _literal(Kind(name="bool"), bool(node.this))


def _null(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    return _literal(Kind(name="text", length=0), None)


def _inner(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    return _bound(node.this, kinds)


def _condition(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    bound = _bound(node, kinds)
    if bound.kind.name == "bool" or _is_null(bound):
        return bound
    raise Unfit(f"takes {node.sql()} for a condition, which it is not")


def _is_null(bound: Expression) -> bool:
    return isinstance(bound, _Literal) and bound.value is None


def _and(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    return _both(node, kinds, _conjunction)


def _or(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    return _both(node, kinds, _disjunction)


def _conjunction(a: Any, b: Any) -> bool | None:
    if a is None or b is None:
        return None if (a is None or a) and (b is None or b) else False
    return bool(a and b)


def _disjunction(a: Any, b: Any) -> bool | None:
    if a is None or b is None:
        return True if a or b else None
    return bool(a or b)


def _both(
    node: Any, kinds: Mapping[str, Kind], join: Callable[[Any, Any], bool | None]
) -> Expression:
    one, other = _condition(node.this, kinds), _condition(node.expression, kinds)

    def of(columns: Columns, rows: int) -> Values:
        return list(map(join, one.of(columns, rows), other.of(columns, rows)))

    return _flags(of, one, other)


def _flags(of: _Of, *parts: Expression) -> Expression:
    columns = frozenset[str]().union(*(p.columns for p in parts))
    return Expression(columns=columns, kind=Kind(name="bool"), of=of)


def _not(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    inner = _condition(node.this, kinds)

    def of(columns: Columns, rows: int) -> Values:
        return [None if v is None else not v for v in inner.of(columns, rows)]

    return _flags(of, inner)


def _compared(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    one, other = _bound(node.this, kinds), _bound(node.expression, kinds)
    return _comparison(type(node).__name__, one, other)


def _comparison(operator: str, one: Expression, other: Expression) -> Expression:
    if _is_null(one) or _is_null(other):
        raise Unfit("compares with null, which is never true: write is null")
    how: Comparison = comparison(operator, one.kind, other.kind)
    if isinstance(other, _Literal):
        # Most comparisons: made ready once.
        with_it = how.to(other.value)
        return _flags(lambda columns, rows: with_it(one.of(columns, rows)), one)
    return _flags(lambda c, rows: how.pairs(one.of(c, rows), other.of(c, rows)), one, other)


def _between(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    value = _bound(node.this, kinds)
    low = _comparison("GTE", value, _bound(node.args["low"], kinds))
    high = _comparison("LTE", value, _bound(node.args["high"], kinds))

    def of(columns: Columns, rows: int) -> Values:
        return list(map(_conjunction, low.of(columns, rows), high.of(columns, rows)))

    return _flags(of, low, high)


def _in(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    value = _bound(node.this, kinds)
    tests = [_comparison("EQ", value, _bound(e, kinds)) for e in node.expressions]
    if not tests:
        raise Unfit("holds in without a list")

    def of(columns: Columns, rows: int) -> Values:
        found = tests[0].of(columns, rows)
        for test in tests[1:]:
            found = list(map(_disjunction, found, test.of(columns, rows)))
        return found

    return _flags(of, *tests)


def _is(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    value, what = _bound(node.this, kinds), _bound(node.expression, kinds)
    if not isinstance(what, _Literal) or what.kind.name not in ("bool", "text"):
        raise Unfit("holds is with something else than null, true or false")
    wanted = what.value
    if wanted is not None and value.kind.name != "bool":
        raise Unfit(f"asks whether {value.kind.name} is true")

    def of(columns: Columns, rows: int) -> Values:
        values = value.of(columns, rows)
        if wanted is None:
            return [v is None for v in values]
        return [v is not None and bool(v) is wanted for v in values]

    return _flags(of, value)


def _like(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    value, pattern = _texts(kinds, node.this, node.expression)
    if not isinstance(pattern, _Literal):
        raise Unfit("holds like with something else than a 'text'")
    matches, wanted = like(str(pattern.value)), not node.args.get("negate")

    def of(columns: Columns, rows: int) -> Values:
        values = value.of(columns, rows)
        return [None if v is None else (matches(v) is not None) is wanted for v in values]

    return _flags(of, value)


# Values.


def _texts(kinds: Mapping[str, Kind], *nodes: Any) -> list[Expression]:
    found = [_bound(node, kinds) for node in nodes]
    for bound in found:
        if bound.kind.name not in ("text", "enum", "uuid"):
            raise Unfit(f"takes {bound.kind.name} for text")
    return found


def _text_of(change: Callable[[str], str]) -> Callable[[Any, Mapping[str, Kind]], Expression]:
    def make(node: Any, kinds: Mapping[str, Kind]) -> Expression:
        (inner,) = _texts(kinds, node.this)

        def of(columns: Columns, rows: int) -> Values:
            return [None if v is None else change(v) for v in inner.of(columns, rows)]

        kind = Kind(name="text", length=inner.kind.length)
        return Expression(columns=inner.columns, kind=kind, of=of)

    return make


def _concat(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    nodes = node.expressions or [node.this, node.expression]
    parts = _texts(kinds, *nodes)
    lengths = [p.kind.length for p in parts]

    def of(columns: Columns, rows: int) -> Values:
        every = zip(*(p.of(columns, rows) for p in parts), strict=True)
        return [None if None in values else "".join(values) for values in every]

    length = None if None in lengths else sum(n for n in lengths if n is not None)
    columns = frozenset[str]().union(*(p.columns for p in parts))
    return Expression(columns=columns, kind=Kind(name="text", length=length), of=of)


def _coalesce(node: Any, kinds: Mapping[str, Kind]) -> Expression:
    parts = [_bound(n, kinds) for n in (node.this, *node.expressions)]
    kind = _common([p.kind for p in parts if not _is_null(p)])

    def of(columns: Columns, rows: int) -> Values:
        found = list(parts[0].of(columns, rows))
        for part in parts[1:]:
            if None not in found:
                break
            more = part.of(columns, rows)
            found = [b if a is None else a for a, b in zip(found, more, strict=True)]
        return found

    columns = frozenset[str]().union(*(p.columns for p in parts))
    return Expression(columns=columns, kind=kind, of=of)


def _common(kinds: Sequence[Kind]) -> Kind:
    """The kind that takes the values of all of them."""
    if not kinds:
        raise Unfit("holds coalesce of nothing but null")
    names = {k.name for k in kinds}
    if names <= {"text", "enum", "uuid"} and names != {"uuid"}:
        lengths = [k.length for k in kinds]
        known = [n for n in lengths if n is not None]
        return Kind(name="text", length=max(known) if len(known) == len(lengths) else None)
    if len(names) > 1:
        raise Unfit(f"holds coalesce of {' and '.join(sorted(names))}")
    if names == {"decimal"} and len(set(kinds)) > 1:
        return Kind(name="decimal")
    return max(kinds, key=lambda k: (k.bits, k.fraction))


_MAKE: dict[str, Callable[[Any, Mapping[str, Kind]], Expression]] = {
    "Column": _column,
    "Literal": _text,
    "Neg": _negative,
    "Boolean": _flag,
    "Null": _null,
    "Paren": _inner,
    "And": _and,
    "Or": _or,
    "Not": _not,
    **dict.fromkeys(("EQ", "NEQ", "LT", "LTE", "GT", "GTE"), _compared),
    "Between": _between,
    "In": _in,
    "Is": _is,
    "Like": _like,
    "Lower": _text_of(str.lower),
    "Upper": _text_of(str.upper),
    "Trim": _text_of(lambda v: v.strip(" ")),
    "Concat": _concat,
    "DPipe": _concat,
    "Coalesce": _coalesce,
}
