"""Probabilistic linking, for rows without an exact key: in blocks of equal values every two rows
are compared, and a Fellegi-Sunter model gives each two the probability that they are the same.

RapidFuzz compares the texts (the extra `headwater[linking]`); the model is fitted by expectation
maximisation on the counts of equal comparisons, so rows stay in the working file. Invariant: a row
has at most one partner, and none where another one is nearly as likely. Same rows, same result.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from math import exp, log
from typing import TYPE_CHECKING, Any

from ops.enrol.rules import Text, normalised
from schemas.errors import Misconfigured

if TYPE_CHECKING:
    from ops.enrol.twin import Rule, Twin

MOST_PAIRS = 10_000_000
"""Comparisons in one table; two columns take 16 s of a processor, 250 MB, and 150 MB on disk."""
SAMPLE = 400
"""Rows of each side that are compared across blocks, to see how alike strangers are."""
DOUBT = 0.5
"""Two rows that are the same with this probability are worth a person's look."""
BLOCK = 10_000
UNSEEN = 0.0001
"""Of strangers, the share that is spread over all levels: what a sample has not shown may be."""
ROUNDS = 200
"""Of the fit, at most; it has converged after some tens."""
DIGITS = 4
"""Of a probability: what is below is the processor's rounding, and never decides."""

METHODS: dict[str, tuple[float, ...]] = {
    "exact": (1.0,),
    "jaro_winkler": (0.8, 0.92, 1.0),
    "levenshtein": (-2.0, -1.0, 0.0),
}
"""Likeness from which on two texts are one level more alike; the last one: equal. Levenshtein's are
numbers of edits, as Splink's defaults are."""
ALIKE = (0.8, 0.13, 0.05, 0.02)
"""What is expected of rows that are the same before any is seen, the most alike level first; …"""
ALIKE_WEIGHT, STRANGERS_WEIGHT = 10.0, 100.0
"""… and as how many pairs these expectations, and those from strangers, count in the fit."""

CLOSE, DOUBTFUL, DECIDED = (
    "another pair of one of these rows is as likely, or nearly",
    "likelier than not, and below at_least",
    "an earlier rule decided one of these rows, or found it ambiguous",
)

Pattern = tuple[int | None, ...]
"""A level for each compared column, None where one of the two has no value."""
Free = Callable[[int, str, str], str]


def methods() -> dict[str, Callable[[str, str], float]]:
    """By name, the likeness of two texts; raises Misconfigured where the extra is missing."""
    try:
        from rapidfuzz.distance import JaroWinkler, Levenshtein
    except ImportError as error:
        raise Misconfigured(
            "found `likely` in a match, and RapidFuzz, which compares texts, is not installed",
            hint="pip install 'headwater[linking]'",
        ) from error
    return {
        "exact": lambda a, b: float(a == b),
        "jaro_winkler": JaroWinkler.similarity,
        "levenshtein": lambda a, b: -Levenshtein.distance(a, b, score_cutoff=2),
    }


def pair(
    db: sqlite3.Connection,
    twin: Twin,
    number: int,
    rule: Rule,
    chosen: Sequence[str],
    free: Free,
) -> None:
    """Pair the likeliest rows of a twin that earlier rules left. chosen: (side, row, k, each
    parent), of both sides, of the rows that have a block; free: whether a row has no partner yet.

    Raises Misconfigured where the blocks are so large that MOST_PAIRS do not do.
    """
    assert rule.likely is not None, "asked only of such rules"
    width = len(rule.likely.compare)
    names = ", ".join(["k", *(f"p{i}" for i in range(len(rule.parents)))])
    for side, rows in zip("st", chosen, strict=True):
        texts = ", ".join(f"n{i}" for i in range(width))
        db.execute(f"CREATE TABLE b{side} AS SELECT * FROM ({rows})")
        db.execute(f"CREATE INDEX b{side}_k ON b{side} ({names})")
        db.execute(f"CREATE TABLE c{side} (row INTEGER PRIMARY KEY, {texts})")
        _compared(db, twin, rule, side)
    same = " AND ".join(f"a.{c} = b.{c}" for c in names.split(", "))
    _limit(db, twin, rule, names, same)
    levels = _levels(db, rule)
    joined = "JOIN cs ON cs.row = a.row JOIN ct ON ct.row = b.row"
    db.execute(f"""
        CREATE TABLE seen AS SELECT a.row AS s, b.row AS t, {levels}
        FROM bs a JOIN bt b ON {same} {joined}
    """)
    columns = ", ".join(f"l{i}" for i in range(width))
    sampled = [f"(SELECT * FROM b{side} JOIN {side}{twin.number} USING (row) ORDER BY k, key"
               f" LIMIT {SAMPLE})" for side in "st"]  # fmt: skip
    met = f"(SELECT {levels} FROM {sampled[0]} a JOIN {sampled[1]} b ON NOT ({same}) {joined})"
    counts, strangers = (
        {
            tuple(pattern): count
            for *pattern, count in db.execute(
                f"SELECT {columns}, count(*) FROM {pairs} GROUP BY {columns}"
            )
        }
        for pairs in ("seen", met)
    )
    sizes = [len(METHODS[method]) + 1 for method in rule.likely.compare.values()]
    _choose(db, twin.number, number, rule, probabilities(counts, strangers, sizes), columns, free)
    for table in ("bs", "bt", "cs", "ct", "seen", "scored", "close", "likely"):
        db.execute(f"DROP TABLE {table}")


def _compared(db: sqlite3.Connection, twin: Twin, rule: Rule, side: str) -> None:
    """The texts that are compared, after their steps, of the rows that have a block."""
    assert rule.likely is not None
    columns = list(rule.likely.compare)
    fields = ", ".join(f"r.f{twin.linked.index(c)}" for c in columns)
    marks = ", ".join("?" * (len(columns) + 1))
    reading = db.execute(
        f"SELECT r.row, {fields} FROM b{side} JOIN {side}{twin.number} r USING (row)"
    )
    while rows := reading.fetchmany(BLOCK):
        ids, *texts = zip(*rows, strict=True)
        steps = [twin.steps.get(c, ()) for c in columns]
        plain: list[list[Text]] = [
            normalised(list(values), each)[0] for values, each in zip(texts, steps, strict=True)
        ]
        db.executemany(f"INSERT INTO c{side} VALUES ({marks})", zip(ids, *plain, strict=True))


def _limit(db: sqlite3.Connection, twin: Twin, rule: Rule, names: str, same: str) -> None:
    counted = [f"(SELECT {names}, count(*) AS c FROM b{side} GROUP BY {names})" for side in "st"]
    ((pairs, most),) = db.execute(
        f"SELECT total(a.c * b.c), max(a.c * b.c) FROM {counted[0]} a JOIN {counted[1]} b ON {same}"
    )
    if pairs > MOST_PAIRS:
        raise Misconfigured(
            f"found {int(pairs):,} pairs of rows of {twin.name} with the same "
            f"{' + '.join((*rule.parents, *rule.plain))}, {most:,} of them in one block: more than "
            f"the {MOST_PAIRS:,} that are compared",
            hint="name more columns in likely.block: rows are compared where all of them are equal",
        )


def _levels(db: sqlite3.Connection, rule: Rule) -> str:
    """SQL: a level for each compared column, l0 and so on."""
    assert rule.likely is not None
    likeness = methods()
    for name, bounds in METHODS.items():

        def level(
            a: Text, b: Text, of: Any = likeness[name], bounds: tuple[float, ...] = bounds
        ) -> int | None:
            return None if a is None or b is None else bisect_right(bounds, of(a, b))

        db.create_function(f"level_{name}", 2, level, deterministic=True)
    return ", ".join(
        f"level_{method}(cs.n{i}, ct.n{i}) AS l{i}"
        for i, method in enumerate(rule.likely.compare.values())
    )


def _choose(
    db: sqlite3.Connection,
    n: int,
    number: int,
    rule: Rule,
    found: Mapping[Pattern, float],
    columns: str,
    free: Free,
) -> None:
    """Matches into m, what is in doubt into g, y and a (scratch.py)."""
    assert rule.likely is not None
    at_least, margin = rule.likely.at_least, rule.likely.margin
    names = columns.split(", ")
    db.execute(f"CREATE TABLE scored ({columns}, score)")
    marks = ", ".join("?" * (len(names) + 1))
    lines = ((*pattern, score) for pattern, score in found.items() if score >= DOUBT - margin)
    db.executemany(f"INSERT INTO scored VALUES ({marks})", lines)
    same = " AND ".join(f"x.{c} IS seen.{c}" for c in names)
    db.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS m{n}_t ON m{n} (t)")
    db.execute(f"""
        CREATE TABLE close AS SELECT s, t, x.score, {free(n, "s", "seen.s")} AS free_s,
            {free(n, "t", "seen.t")} AS free_t
        FROM seen JOIN scored x ON {same}
    """)
    for side in "st":
        db.execute(f"CREATE INDEX close_{side} ON close ({side}, score)")
    rivals = " OR ".join(
        f"EXISTS (SELECT 1 FROM close r WHERE r.{side} = c.{side} AND r.{other} <> c.{other} AND "
        f"r.score >= round(c.score - {margin}, {DIGITS}))"
        for side, other in ("st", "ts")
    )
    db.execute(f"""
        CREATE TABLE likely AS SELECT c.*, {rivals} AS rivalled FROM close c
        WHERE score >= {DOUBT} AND (free_s OR free_t)
    """)
    db.execute(f"""
        INSERT INTO m{n} SELECT s, t, {number}, score FROM likely
        WHERE score >= {at_least} AND NOT rivalled AND free_s AND free_t ORDER BY s
    """)
    mine = f"SELECT 1 FROM m{n} m WHERE m.rule = {number} AND"
    db.execute(
        f"DELETE FROM likely WHERE EXISTS ({mine} m.s = likely.s) OR EXISTS ({mine} m.t = likely.t)"
    )
    ((first,),) = db.execute(f"SELECT coalesce(max(grp), 0) FROM g{n}")
    order = f"{first} + row_number() OVER (ORDER BY score DESC, x.key, y.key)"
    db.execute(f"""
        CREATE TABLE doubtful AS SELECT {order} AS grp, likely.* FROM likely
        JOIN s{n} x ON x.row = s JOIN t{n} y ON y.row = t
    """)
    db.execute(f"""
        INSERT INTO g{n} SELECT grp, {number}, printf('%.{DIGITS}f: ', score) || CASE
            WHEN NOT (free_s AND free_t) THEN '{DECIDED}' WHEN rivalled THEN '{CLOSE}'
            ELSE '{DOUBTFUL}' END FROM doubtful
    """)
    for at, side in enumerate("st"):
        db.execute(f"INSERT INTO y{n} SELECT grp, {at}, {side} FROM doubtful")
        db.execute(
            f"INSERT OR IGNORE INTO a{n} SELECT {at}, {side}, grp FROM doubtful WHERE free_{side}"
        )
    db.execute("DROP TABLE doubtful")


def probabilities(
    counts: Mapping[Pattern, int], strangers: Mapping[Pattern, int], sizes: Sequence[int]
) -> dict[Pattern, float]:
    """How probable it is that two rows with this pattern are the same, rounded to DIGITS.

    counts: pairs by pattern; strangers: such as are hardly ever the same; sizes: levels of each
    column. Fellegi and Sunter, A Theory for Record Linkage (1969), fitted as in Winkler (1988).
    """
    counts = {pattern: counts[pattern] for pattern in sorted(counts, key=str)}
    expected = [[a / sum(ALIKE[:size]) for a in reversed(ALIKE[:size])] for size in sizes]
    evenly = [[1 / size] * size for size in sizes]
    strange = _shares(strangers, evenly, max(1.0, UNSEEN * sum(strangers.values())))
    same, other, share = expected, strange, 0.1
    weights: dict[Pattern, float] = {}
    for _ in range(ROUNDS):
        before = weights
        weights = {p: _probability(p, same, other, share) for p in counts}
        if before and max(abs(weights[p] - before[p]) for p in counts) < 10 ** -(DIGITS + 2):
            break
        partners = {p: weights[p] * count for p, count in counts.items()}
        rest = {p: count - partners[p] for p, count in counts.items()}
        share = (sum(partners.values()) + 0.1) / (sum(counts.values()) + 1)
        same = _shares(partners, expected, ALIKE_WEIGHT)
        other = _shares(rest, strange, STRANGERS_WEIGHT)
    return {p: round(w, DIGITS) for p, w in weights.items()}


def _shares(
    counts: Mapping[Pattern, float], prior: Sequence[Sequence[float]], prior_weight: float
) -> list[list[float]]:
    """For each column, the share of each level; the prior counts as many pairs as its weight."""
    found = []
    for column, expected in enumerate(prior):
        sums = [prior_weight * share for share in expected]
        for pattern, count in counts.items():
            level = pattern[column]
            if level is not None:
                sums[level] += count
        found.append([s / sum(sums) for s in sums])
    return found


def _probability(
    pattern: Pattern,
    same: Sequence[Sequence[float]],
    other: Sequence[Sequence[float]],
    share: float,
) -> float:
    odds = log(share / (1 - share)) + sum(
        log(m[level] / u[level])
        for level, m, u in zip(pattern, same, other, strict=True)
        if level is not None
    )
    return 1 / (1 + exp(-max(-700.0, min(700.0, odds))))
