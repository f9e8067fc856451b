"""Corner values of every kind, as SQL, for MySQL and MariaDB; and random ones."""

from __future__ import annotations

import json
import random

Column = tuple[str, str, list[str]]
"""Name, type, literals."""


def _texts(*values: str) -> list[str]:
    return ["'" + v.replace("\\", "\\\\").replace("'", "''") + "'" for v in values]


def _hexes(*values: str) -> list[str]:
    return [f"x'{v}'" for v in values]


def _ints(bits: int) -> list[Column]:
    name = {8: "tinyint", 16: "smallint", 24: "mediumint", 32: "int", 64: "bigint"}[bits]
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    top = (1 << bits) - 1
    return [
        (f"i{bits}", name, [str(low), "-1", "0", str(high)]),
        (f"u{bits}", f"{name} unsigned", ["0", "1", str(top), str(top - 1)]),
        (f"z{bits}", f"{name} zerofill", ["0", "7", str(top)]),
    ]


DECIMALS: list[Column] = [
    (
        "d65",
        "decimal(65,30)",
        ["9" * 35 + "." + "9" * 30, "-" + "9" * 35 + "." + "9" * 30, "0", "-0", "1e-30", "-1e-30"],
    ),
    ("d50", "decimal(5,0)", ["99999", "-99999", "0", "-0.4"]),
    ("d99", "decimal(9,9)", ["0.999999999", "-0.000000001", "0"]),
    ("d189", "decimal(18,9)", ["999999999.999999999", "-1.000000001", "100000000"]),
    ("d1910", "decimal(19,10)", ["-123456789.0123456789", "999999999.9999999999"]),
    ("d650", "decimal(65,0)", ["9" * 65, "-" + "9" * 65, "1000000000", "999999999"]),
    ("dz", "decimal(12,3) zerofill", ["0", "1.5", "12345.678"]),
    ("d22", "decimal(2,1)", ["9.9", "-9.9"]),
]
FLOATS: list[Column] = [
    ("f32", "float", ["1.1", "-0.1", "16777216", "16777217", "3.4e38", "1e-45", "0", "0.3333333"]),
    (
        "f64",
        "double",
        ["1.1", "1e308", "-2.5e-308", "5e-324", "0.1", "123456789.123456789", "-0e0"],
    ),
    ("f72", "float(7,2)", ["12345.67", "-1"]),
]
TIMES: list[Column] = [
    *(
        (
            f"t{n}",
            f"time({n})",
            _texts("-838:59:59", "838:59:59", "00:00:00", "-00:00:00.1", "-00:00:01.999999")
            + _texts("-838:59:58.999999", "12:34:56.5", "-01:00:00.000001"),
        )
        for n in range(7)
    ),
    *(
        (
            f"dt{n}",
            f"datetime({n})",
            _texts("1000-01-01", "9999-12-31 23:59:59", "1969-12-31 23:59:59.5")
            + _texts("2026-03-29 02:30:00.123456", "0000-00-00", "2026-01-01 00:00:00.999999"),
        )
        for n in range(7)
    ),
    *(
        (
            f"ts{n}",
            f"timestamp({n}) null",
            _texts("1970-01-01 00:00:01", "2038-01-19 03:14:07", "2026-03-29 00:59:59.999999")
            + _texts("2026-03-29 01:00:00.5", "2026-10-25 00:30:00", "0000-00-00"),
        )
        for n in range(7)
    ),
    (
        "da",
        "date",
        ["'1000-01-01'", "'9999-12-31'", "'0000-00-00'", "'2024-02-29'", "'2026-00-00'"],
    ),
    ("dp", "datetime", ["'2026-00-00 10:00:00'", "'2026-05-00'"]),
]
_LATIN = "sm\u201cart\u201d \u20ac \xe9\xff \x81\x8d\x8f\x90\x9d"
TEXTS: list[Column] = [
    ("latin1", "varchar(40) charset latin1", [*_texts("", _LATIN, 'q"\\u')]),
    ("cp1250", "varchar(20) charset cp1250", _texts("\u0141\xf3d\u017a")),
    ("greek", "varchar(20) charset greek", _texts("\u03b1\u03b2\u03b3")),
    ("koi8r", "varchar(20) charset koi8r", _texts("\u041f\u0440\u0438\u0432\u0435\u0442")),
    ("sjis", "varchar(20) charset sjis", _texts("\u65e5\u672c\u8868\u30bd", "a\\b")),
    ("cp932", "varchar(20) charset cp932", _texts("\u65e5\u672c\u2460\u30bd")),
    ("ujis", "varchar(20) charset ujis", _texts("\u65e5\u672c\u8a9e")),
    ("euckr", "varchar(20) charset euckr", _texts("\ud55c\uad6d\uc5b4")),
    ("gbk", "varchar(20) charset gbk", _texts("\u4e2d\u6587\u8aa0")),
    ("big5", "varchar(20) charset big5", _texts("\u4e2d\u6587\u529f")),
    ("utf8mb3", "varchar(20) charset utf8mb3", _texts("h\xe9llo \u20ac")),
    (
        "utf8mb4",
        "varchar(300)",
        _texts("\U0001f600 \x00\x1f\x7f\u2028", "x" * 300, "tab\t\n\r", " "),
    ),
    ("utf16", "varchar(20) charset utf16", _texts("\U0001f600\xe9")),
    ("utf32", "varchar(20) charset utf32", _texts("\U0001f600\xe9")),
    ("ucs2", "char(20) charset ucs2", _texts("\xe9 a ")),
    ("bincoll", "varchar(20) collate utf8mb4_bin", _texts("\xe9\xc9")),
    ("ch", "char(80)", _texts("trailing  ", "", "\U0001f600" * 80)),
    ("tt", "tinytext", _texts("", "t" * 255)),
    ("mt", "mediumtext", _texts("m" * 70000)),
    ("lt", "longtext charset latin1", _texts("\xe9" * 300)),
    ("bi", "binary(5)", _hexes("0001020000", "00", "ff", "")),
    ("vb", "varbinary(300)", _hexes("", "00", "ff" * 300, "0100")),
    ("bl", "blob", _hexes("", "00" * 300)),
    ("lb", "longblob", _hexes("deadbeef")),
    (
        "en",
        "enum('a','b''c','d,e','\u20ac','','f\\\\g')",
        ["'a'", "2", "3", "4", "''", "6", "0"],
    ),
    ("el", "enum('\xe9','x') charset latin1", ["1", "2"]),
    ("e300", "enum(" + ",".join(f"'v{i}'" for i in range(300)) + ")", ["1", "255", "256", "300"]),
    ("bo", "tinyint(1)", ["0", "1", "2", "-1", "127", "-128"]),
]
_NESTED: dict[str, object] = {
    "a": [1, -1, 1.5, None, True, False, {"b": {"c": []}}],
    "\U0001f600": '\xe9\n"\\',
}
JSONS: list[Column] = [
    (
        "js",
        "json",
        _texts(
            *("{}", "[]", "null", "true", '"x"', "1", "-32769", "65536", "-2147483649"),
            *("9223372036854775807", "-9223372036854775808", "18446744073709551615"),
            *("1.0", "1e400"[:4], "1e15", "1e14", "123456.789e3", "1e-14", "1e-16", "-0.0"),
            *('{"b":1,"a":2,"b":3}', json.dumps(_NESTED, ensure_ascii=False)),
            json.dumps({f"k{i}": "v" * 40 for i in range(2000)}),
            json.dumps(list(range(40000))),
            json.dumps(["x" * 200, "y" * 20000, "\x1f\x7f"]),
        ),
    )
]
MYSQL_JSONS = [
    "json_object('d', cast(1.50 as decimal(10,2)), 'e', cast(-12345678901234.5 as decimal(20,3)))",
    "json_array(cast('2026-01-02' as date), cast('2026-01-02 03:04:05.6' as datetime(6)),"
    " cast('-12:34:56.7' as time(6)), cast('838:59:59' as time))",
    "json_array(cast(x'00ff' as json), 1)".replace("cast(x'00ff' as json)", "x'00ff'"),
    "json_array(18446744073709551615, 1e300, 0.1, 100, 1.7976931348623157e308)",
    "cast(timestamp'2026-01-02 03:04:05' as json)",
]
UUIDS = [
    "00112233-4455-1677-8899-aabbccddeeff",
    "00112233-4455-2677-8899-aabbccddeeff",
    "00112233-4455-3677-b899-aabbccddeeff",
    "00112233-4455-4677-8899-aabbccddeeff",
    "00112233-4455-5677-8899-aabbccddeeff",
    "00112233-4455-6677-8899-aabbccddeeff",
    "00112233-4455-7677-8899-aabbccddeeff",
    "00112233-4455-8677-8899-aabbccddee00",
    "00112233-4455-1677-0899-aabbccddeeff",
    "00112233-4455-1677-c899-aabbccddeeff",
    "00112233-4455-7677-e899-aabbccdd0000",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
]


def corner_tables(kind: str) -> dict[str, list[Column]]:
    """Tables of columns with their corner values."""
    jsons = [(n, t, v + (MYSQL_JSONS if kind == "mysql" else [])) for n, t, v in JSONS]
    tables = {
        "ints": [c for bits in (8, 16, 24, 32, 64) for c in _ints(bits)],
        "decimals": DECIMALS,
        "floats": FLOATS,
        "times": TIMES,
        "texts": TEXTS,
        "jsons": jsons,
    }
    if kind == "mariadb":
        tables["uuids"] = [("uu", "uuid", _texts(*UUIDS))]
    return tables


def random_tables(seed: int) -> dict[str, list[Column]]:
    """Random values of the kinds whose encoding has many paths."""
    draw = random.Random(seed)
    decimals: list[Column] = []
    for i in range(12):
        precision = draw.randint(1, 65)
        scale = draw.randint(0, min(30, precision))
        values = []
        for _ in range(40):
            digits = "".join(draw.choices("0123456789", k=draw.randint(1, precision)))
            digits = digits.rjust(scale + 1, "0")
            text = digits[: len(digits) - scale] + ("." + digits[-scale:] if scale else "")
            text = text if len(digits) <= precision else "0"
            values.append(draw.choice(("", "-")) + text)
        decimals.append((f"d{i}", f"decimal({precision},{scale})", values))
    doubles = [repr(draw.uniform(-1, 1) * 10 ** draw.randint(-300, 300)) for _ in range(100)]
    doubles += [
        repr(draw.randint(-(10**18), 10**18) / 10 ** draw.randint(0, 20)) for _ in range(100)
    ]
    singles = [repr(draw.uniform(-1, 1) * 10 ** draw.randint(-37, 37)) for _ in range(100)]
    fractions = [
        f"'{draw.choice(('', '-'))}{draw.randint(0, 838)}:{draw.randint(0, 59):02d}:"
        f"{draw.randint(0, 58):02d}.{draw.randint(0, 999999):06d}'"
        for _ in range(60)
    ]
    moments = [
        f"'{draw.randint(1971, 2037)}-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d} "
        f"{draw.randint(0, 23):02d}:{draw.randint(0, 59):02d}:{draw.randint(0, 58):02d}."
        f"{draw.randint(0, 999999):06d}'"
        for _ in range(60)
    ]
    texts = _texts(*("".join(map(chr, draw.choices(range(1, 0xD7FF), k=20))) for _ in range(60)))
    return {
        "decimals": decimals,
        "floats": [("f32", "float", singles), ("f64", "double", doubles)],
        "times": [(f"t{n}", f"time({n})", fractions) for n in range(7)]
        + [(f"dt{n}", f"datetime({n})", moments) for n in range(7)]
        + [(f"ts{n}", f"timestamp({n}) null", moments) for n in range(7)],
        "texts": [("t", "varchar(100)", texts), ("u", "varchar(100) charset utf16", texts)],
        "jsons": [("j", "json", [f"'{d}'" for d in doubles])],
    }
