"""Character sets of a server, decoded as the server itself does.

Character sets of one byte are asked for, all 256 of them, when first needed: Python's tables differ
(MySQL's latin1 is cp1252 with the five holes filled). Multi-byte ones use Python's codecs, with the
few characters corrected that differ; compared with MySQL 9.7 and MariaDB 10.11 over all pairs.
"""

import codecs
from collections.abc import Callable
from typing import Any

from capture.binlog_kinds import Charset, Decode
from schemas.errors import Unsupported

_CODECS = {
    "utf8mb4": "utf-8",
    "utf8mb3": "utf-8",
    "utf8": "utf-8",
    "ascii": "ascii",
    "ucs2": "utf-16-be",
    "utf16": "utf-16-be",
    "utf16le": "utf-16-le",
    "utf32": "utf-32-be",
    "gbk": "gbk",
    "gb2312": "gb2312",
    "gb18030": "gb18030",
    "big5": "big5",
    "euckr": "cp949",
    "cp932": "cp932",
    "sjis": "shift_jis",
    "ujis": "euc_jp",
    "eucjpms": "euc_jp",
}
_CORRECTIONS = {
    "sjis": {"\uff3c": "\\"},
    "ujis": {"\uff3c": "\\"},
    "eucjpms": dict(
        zip("\u301c\u2016\u2212\xa2\xa3\xac", "\uff5e\u2225\uff0d\uffe0\uffe1\uffe2", strict=True)
    ),
}

Query = Callable[[str], list[tuple[Any, ...]]]


class ServerCharsets:
    """A collation's number -> its character set; asks the server through `query` when needed."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._names: dict[int, tuple[str, int]] = {}
        self._known: dict[str, Charset] = {}

    def __call__(self, collation: int) -> Charset:
        """The character set of a collation; raises Unsupported for an unknown number."""
        if not self._names:
            self._load()
        if collation not in self._names:
            raise Unsupported(
                f"found collation number {collation} in the binlog, which the server does not list",
                hint="report it, with the server's version",
            )
        name, max_bytes = self._names[collation]
        if name not in self._known:
            self._known[name] = Charset(name=name, max_bytes=max_bytes, decode=self._decode(name))
        return self._known[name]

    def _load(self) -> None:
        sizes = {
            name: int(size)
            for name, size in self._query(
                "SELECT character_set_name, maxlen FROM information_schema.character_sets"
            )
        }
        for name, number in self._query(
            "SELECT character_set_name, id FROM information_schema.collations "
            "WHERE id IS NOT NULL AND character_set_name IS NOT NULL"
        ):
            self._names[int(number)] = (name, sizes[name])
        if any(len(row) for row in self._query(_MARIADB_HAS_IDS)):
            # MariaDB's UCA 14.0.0 collations have one number for each character set.
            for name, number in self._query(
                "SELECT character_set_name, id "
                "FROM information_schema.collation_character_set_applicability "
                "WHERE id IS NOT NULL"
            ):
                self._names[int(number)] = (name, sizes[name])

    def _decode(self, name: str) -> Decode:
        if name == "binary":
            return lambda raw: raw.decode("latin-1")
        if name not in _CODECS:
            return self._one_byte(name)
        codec = codecs.lookup(_CODECS[name]).decode
        corrections = str.maketrans(_CORRECTIONS.get(name, {}))
        if corrections:
            return lambda raw: codec(raw)[0].translate(corrections)
        return lambda raw: codec(raw)[0]

    def _one_byte(self, name: str) -> Decode:
        columns = ",".join(
            f"HEX(CONVERT(CONVERT(x'{byte:02x}' USING {name}) USING utf32))" for byte in range(256)
        )
        (row,) = self._query(f"SELECT {columns}")
        table = "".join(bytes.fromhex(one).decode("utf-32-be") if one else "\ufffe" for one in row)
        return lambda raw: codecs.charmap_decode(raw, "strict", table)[0]


_MARIADB_HAS_IDS = (
    "SELECT 1 FROM information_schema.columns WHERE table_schema = 'information_schema' "
    "AND LOWER(table_name) = 'collation_character_set_applicability' AND LOWER(column_name) = 'id'"
)
