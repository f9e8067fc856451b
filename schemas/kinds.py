"""Kinds: what a column's values are, independent of any server. The wire form of each is fixed here
and in docs/wire.md.

| kind      | parameters                      | on the wire (JSON)                                                   |
|-----------|---------------------------------|----------------------------------------------------------------------|
| int       | bits 8 16 24 32 64, unsigned    | number, exact to 64 bits                                             |
| decimal   | precision, scale (None: any)    | string of plain digits; PostgreSQL may give "NaN" "Infinity" "-Infinity" |
| float     | bits 32 or 64                   | number, shortest that round-trips in those bits; "NaN" "Infinity" "-Infinity" as strings |
| bool      |                                 | true, false; MySQL's tinyint(1) may hold other integers: a number    |
| text      | length (characters, None: any)  | string                                                               |
| binary    | length (bytes, None: any)       | string, base64 with padding                                          |
| date      |                                 | "2026-11-22"; also "0000-00-00" (MySQL), "infinity", "0044-03-15 BC" (PostgreSQL) |
| time      | fraction 0-6                    | "12:34:56.789"; MySQL: "-838:59:59"; PostgreSQL: "24:00:00"          |
| datetime  | fraction 0-6                    | "2026-11-22T12:34:56.789": a wall clock; specials as for date        |
| timestamp | fraction 0-6                    | "2026-11-22T12:34:56.789Z": an instant, always UTC; specials as for date |
| json      |                                 | string holding the JSON text                                         |
| uuid      |                                 | string, lower case with hyphens                                      |
| enum      | labels                          | string, the label; "" is MySQL's invalid value                       |

Fractions of a second are written without trailing zeros, and without the point when nothing is
left. NULL is JSON null. A column absent from a row was not in the source's log (PostgreSQL's
unchanged TOAST value).
"""  # noqa: E501 (a table)

from dataclasses import asdict, dataclass
from typing import Any, Literal

KindName = Literal[
    "int",
    "decimal",
    "float",
    "bool",
    "text",
    "binary",
    "date",
    "time",
    "datetime",
    "timestamp",
    "json",
    "uuid",
    "enum",
]
NAMES: tuple[KindName, ...] = KindName.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One column's kind; parameters that do not apply keep their defaults (see the table)."""

    name: KindName
    bits: int = 0
    unsigned: bool = False
    precision: int | None = None
    scale: int | None = None
    length: int | None = None
    fraction: int = 6
    labels: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The parameters that differ from their defaults, for `shop.schemas`."""
        plain = asdict(self)
        return {k: v for k, v in plain.items() if k == "name" or v != getattr(_DEFAULTS, k)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Kind":
        """The inverse of `to_json`; raises TypeError for a parameter nobody knows."""
        return Kind(**{**data, "labels": tuple(data.get("labels", ()))})


_DEFAULTS = Kind(name="text")
