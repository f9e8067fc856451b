"""What a statement in the binlog means for captured tables, judged by its leading keywords; pure.

Not a grammar: columns' DDL is not parsed (the next table map says what a table has become). What
changes rows without row events is found by its first words, and stops the capture; what is not
recognised is said so, never taken for harmless.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

Wanted = Callable[[str, str], bool]
"""Whether a table (schema, name) is captured."""


class Meaning(Enum):
    """What to do about a statement."""

    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    ROLLBACK_TO = "rollback to savepoint"
    INSIDE = "inside"
    """Bookkeeping inside a transaction: RELEASE SAVEPOINT, XA END."""
    TRUNCATE = "truncate"
    STOP = "stop"
    DDL = "ddl"
    """May change descriptions; changes no captured row."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`table`: what is truncated, or ("", savepoint). `tables`: the captured ones that STOP is
    about, ("schema", "*") for any of a schema; `why`: a verb phrase.
    """

    meaning: Meaning
    table: tuple[str, str] = ("", "")
    tables: tuple[tuple[str, str], ...] = ()
    why: str = ""
    touches: bool = False
    """Whether it names, or was sent from, a schema with captured tables (DDL and UNKNOWN)."""


_TOKEN = re.compile(
    r"""(?P<skip>\s+|--(?:[ \t][^\n]*|(?=\n|$))|\#[^\n]*|/\*(?!M?!).*?\*/|/\*M?!\d*|\*/)
    |(?P<name>`(?:[^`]|``)*`)
    |(?P<double>"(?:[^"\\]|\\.|"")*")
    |(?P<text>'(?:[^'\\]|\\.|'')*')
    |(?P<word>[\w$@]+)
    |(?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)
_HARMLESS = {
    *("ANALYZE", "OPTIMIZE", "REPAIR", "CHECK", "GRANT", "REVOKE", "SET", "FLUSH", "USE", "RESET"),
    *("INSTALL", "UNINSTALL", "PURGE", "COMMENT", "KILL", "RESTART", "HELP"),
}
_DML = {"INSERT", "REPLACE", "UPDATE", "DELETE", "LOAD", "WITH", "CALL", "DO", "IMPORT"}
_OBJECTS = {
    *("VIEW", "PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "USER", "ROLE", "SERVER", "SEQUENCE"),
    *("TABLESPACE", "LOGFILE", "RESOURCE", "SPATIAL", "PACKAGE", "LIBRARY", "INSTANCE", "UNDO"),
    *("CATALOG", "AGGREGATE", "DEFINER", "ALGORITHM", "SQL", "OR"),
}
_RENAMED_PARTS = ("COLUMN", "INDEX", "KEY")
_PARTITION_STOPS = {
    ("DROP", "PARTITION"): "dropped a partition of",
    ("DROP", "SUBPARTITION"): "dropped a partition of",
    ("TRUNCATE", "PARTITION"): "truncated a partition of",
    ("TRUNCATE", "SUBPARTITION"): "truncated a partition of",
    ("EXCHANGE", "PARTITION"): "exchanged a partition of",
    ("CONVERT", "PARTITION"): "converted a partition of",
    ("CONVERT", "TABLE"): "converted a table into a partition of",
    ("IMPORT", "TABLESPACE"): "imported the tablespace of",
    ("IMPORT", "PARTITION"): "imported a partition of",
    ("DISCARD", "TABLESPACE"): "discarded the tablespace of",
    ("DISCARD", "PARTITION"): "discarded a partition of",
}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


class _Tokens:
    """A statement's words; comments are gone, the contents of /*! … */ are not."""

    def __init__(self, text: str, database: str) -> None:
        self.database = database
        self._tokens = list(_tokens(text))
        self.at = 0

    def word(self, ahead: int = 0) -> str:
        """The next word in capitals, "" for names, texts and marks."""
        at = self.at + ahead
        if at < len(self._tokens) and self._tokens[at].kind == "word":
            return self._tokens[at].text.upper()
        return ""

    def skip(self, *words: str) -> bool:
        """Step over the words if they are next, all of them."""
        if all(self.word(i) == w for i, w in enumerate(words)):
            self.at += len(words)
            return True
        return False

    def table(self) -> tuple[str, str] | None:
        """Read `name` or `schema.name`; None where there is none."""
        first = self._name()
        if first is None:
            return None
        if self.mark("."):
            return first, self._name() or ""
        return self.database, first

    def mark(self, text: str) -> bool:
        """Step over a mark if it is next."""
        if self.at < len(self._tokens) and self._tokens[self.at] == _Token("mark", text):
            self.at += 1
            return True
        return False

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Words outside of names and texts, each with what follows ("" for all but words)."""
        for one, two in zip(self._tokens, self._tokens[1:], strict=False):
            if one.kind == "word":
                yield one.text.upper(), two.text.upper() if two.kind == "word" else ""

    def names(self) -> set[str]:
        """Every word and name: what may be a schema."""
        return {t.text for t in self._tokens if t.kind in ("word", "name")} | {self.database}

    def last(self) -> str:
        """The last word or name: a savepoint's."""
        return self._tokens[-1].text if self._tokens else ""

    def rest(self) -> range:
        """The places from here to the end."""
        return range(self.at, len(self._tokens))

    def advance(self) -> bool:
        """Step over one token; False at the end."""
        self.at += 1
        return self.at < len(self._tokens)

    def _name(self) -> str | None:
        if self.at < len(self._tokens) and self._tokens[self.at].kind in ("word", "name"):
            self.at += 1
            return self._tokens[self.at - 1].text
        return None


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        kind, token = found.lastgroup or "", found[0]
        if kind == "name":
            yield _Token("name", token[1:-1].replace("``", "`"))
        elif kind == "double":  # a name under ANSI_QUOTES; where only a text fits, no harm
            yield _Token("name", token[1:-1].replace('""', '"'))
        elif kind != "skip":
            yield _Token(kind, token)


def judge(text: str, database: str, wanted: Wanted, schemas: Callable[[str], bool]) -> Verdict:
    """What the statement means. `schemas`: whether a schema has captured tables."""
    tokens = _Tokens(text, database)
    verdict = _judge(tokens, wanted, schemas)
    if verdict.meaning in (Meaning.DDL, Meaning.UNKNOWN):
        return replace(verdict, touches=any(map(schemas, tokens.names())))
    return verdict


def _judge(tokens: _Tokens, wanted: Wanted, schemas: Callable[[str], bool]) -> Verdict:
    first = tokens.word()
    if (control := _control(tokens, first)) is not None:
        return Verdict(meaning=control, table=("", tokens.last()))
    if first in _DML:
        return _dml(tokens, first, wanted, schemas)
    if first in _JUDGES:
        tokens.at += 1
        return _JUDGES[first](tokens, wanted, schemas)
    if first in _HARMLESS:
        return Verdict(meaning=Meaning.DDL)
    return Verdict(meaning=Meaning.UNKNOWN)


def _control(tokens: _Tokens, first: str) -> Meaning | None:
    second = tokens.word(1)
    if first == "BEGIN" or (first, second) in (("START", "TRANSACTION"), ("XA", "START")):
        return Meaning.BEGIN
    if first == "XA":
        return {
            "END": Meaning.INSIDE,
            "COMMIT": Meaning.COMMIT,
            "ROLLBACK": Meaning.COMMIT,
            "PREPARE": Meaning.INSIDE,
        }.get(second, Meaning.UNKNOWN)
    if first == "ROLLBACK":
        is_partial = "TO" in (second, tokens.word(2))
        return Meaning.ROLLBACK_TO if is_partial else Meaning.ROLLBACK
    return {
        "COMMIT": Meaning.COMMIT,
        "SAVEPOINT": Meaning.SAVEPOINT,
        "RELEASE": Meaning.INSIDE,
    }.get(first)


_DDL = Verdict(meaning=Meaning.DDL)


def _stop(tables: Iterable[tuple[str, str]], why: str) -> Verdict:
    """STOP for these, DDL where there are none."""
    found = tuple(dict.fromkeys(tables))
    return Verdict(meaning=Meaning.STOP, tables=found, why=why) if found else _DDL


def _dml(tokens: _Tokens, first: str, wanted: Wanted, schemas: Callable[[str], bool]) -> Verdict:
    if first in ("INSERT", "REPLACE", "DELETE"):
        tokens.at += 1
        while tokens.word() in ("LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "QUICK", "IGNORE"):
            tokens.at += 1
        if tokens.word() in ("INTO", "FROM"):
            tokens.at += 1
        table = tokens.table()
        is_single = table is not None and not tokens.mark(",") and tokens.word() != "USING"
        if is_single and table is not None and not (first == "DELETE" and tokens.word() == "FROM"):
            return _stop([table] if wanted(*table) else [], "changed by statement")
    found = [(name, "*") for name in sorted(tokens.names()) if schemas(name)]
    return _stop(found, "changed by statement a table of")


def _truncate(tokens: _Tokens, wanted: Wanted, schemas: Callable[[str], bool]) -> Verdict:
    tokens.skip("TABLE")
    table = tokens.table()
    if table is not None and wanted(*table):
        return Verdict(meaning=Meaning.TRUNCATE, table=table)
    return _DDL


def _drop(tokens: _Tokens, wanted: Wanted, schemas: Callable[[str], bool]) -> Verdict:
    if tokens.skip("TEMPORARY"):
        return _DDL
    if tokens.word() in ("DATABASE", "SCHEMA"):
        tokens.at += 1
        tokens.skip("IF", "EXISTS")
        name = tokens.table()
        if name is not None and (schemas(name[1]) or wanted(name[1], "*")):
            return _stop([(name[1], "*")], "dropped")
        return _DDL
    if tokens.word() in ("TABLE", "TABLES"):
        tokens.at += 1
        tokens.skip("IF", "EXISTS")
        named = []
        while (table := tokens.table()) is not None:
            named.append(table)
            if not tokens.mark(","):
                break
        return _stop([t for t in named if wanted(*t)], "dropped")
    return _DDL


def _rename(tokens: _Tokens, wanted: Wanted, schemas: Callable[[str], bool]) -> Verdict:
    if tokens.word() not in ("TABLE", "TABLES"):
        return _DDL  # RENAME USER
    tokens.at += 1
    tokens.skip("IF", "EXISTS")
    olds: list[tuple[str, str]] = []
    news: list[tuple[str, str]] = []
    while (old := tokens.table()) is not None:
        while tokens.word() not in ("TO", "") and tokens.advance():
            pass  # WAIT n, NOWAIT
        tokens.skip("TO")
        new = tokens.table()
        # A name that only stands between (a TO x, b TO a, x TO b) was and is no table.
        passing = old in news and old not in olds
        news = [n for n in news if not (passing and n == old)]
        olds += [] if passing else [old]
        news += [new] if new is not None else []
        if not tokens.mark(","):
            break
    return _stop([t for t in [*olds, *news] if wanted(*t)], "renamed")


def _alter(tokens: _Tokens, wanted: Wanted, schemas: Callable[[str], bool]) -> Verdict:
    while tokens.word() in ("ONLINE", "OFFLINE", "IGNORE"):
        tokens.at += 1
    if not tokens.skip("TABLE"):
        known = tokens.word() in _OBJECTS or tokens.word() in ("DATABASE", "SCHEMA")
        return _DDL if known else Verdict(meaning=Meaning.UNKNOWN)
    tokens.skip("IF", "EXISTS")
    table = tokens.table()
    if table is None:
        return _DDL
    pairs = set(tokens.pairs())
    stop = next((why for pair, why in _PARTITION_STOPS.items() if pair in pairs), None)
    if stop is None and not _renames(tokens):
        return _DDL
    named = [table, *_others(tokens)]
    return _stop([t for t in named if wanted(*t)], stop or "renamed")


def _others(tokens: _Tokens) -> Iterator[tuple[str, str]]:
    """The other table of a clause: EXCHANGE … WITH TABLE t, RENAME TO t, CONVERT … TABLE t."""
    for at in tokens.rest():
        tokens.at = at
        renames = tokens.skip("RENAME") and tokens.word() not in _RENAMED_PARTS
        if renames and not tokens.mark("=") and tokens.word() in ("TO", "AS"):
            tokens.at += 1
        if (renames or tokens.skip("TABLE")) and (other := tokens.table()) is not None:
            yield other


def _renames(tokens: _Tokens) -> bool:
    return any(one == "RENAME" and two not in _RENAMED_PARTS for one, two in tokens.pairs())


def _create(tokens: _Tokens, wanted: Wanted, schemas: Callable[[str], bool]) -> Verdict:
    replaces = tokens.skip("OR", "REPLACE")
    if tokens.skip("TEMPORARY"):
        return _DDL
    if tokens.skip("TABLE"):
        table = tokens.table()
        if replaces and table is not None and wanted(*table):
            return _stop([table], "replaced")
    return _DDL


_JUDGES = {
    "TRUNCATE": _truncate,
    "DROP": _drop,
    "RENAME": _rename,
    "ALTER": _alter,
    "CREATE": _create,
}
