"""Which tables and columns of a source are captured, and what identifies a row: patterns, matched
once per table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from schemas.errors import Misconfigured
from schemas.table import SYNC_ID

OWN_TABLES = "headwater_*"
"""Our own tables in any database: never captured."""


@dataclass(frozen=True, slots=True)
class Derived:
    """An identity that is computed of the columns that `of` says, in the words of
    `Selection.identity` (schemas/derived.py).
    """

    of: str | Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Patterns over full names (`schema.table`, `schema.table.column`) with `*` and `?`; exclusion
    wins.

    identity maps table patterns to "primary_key", to a column's name, to the names of several
    columns (a natural key), or to Derived; the first match counts, otherwise the column `sync_id`.
    """

    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    exclude_columns: Sequence[str] = ()
    identity: Mapping[str, str | Sequence[str] | Derived] = field(default_factory=dict)

    def wants(self, schema: str, table: str) -> bool:
        """Whether the table is captured."""
        name = f"{schema}.{table}"
        if fnmatchcase(table, OWN_TABLES) or any(fnmatchcase(name, p) for p in self.exclude):
            return False
        return any(fnmatchcase(name, p) for p in self.include)

    def wants_column(self, schema: str, table: str, column: str) -> bool:
        """Whether the column leaves the source."""
        name = f"{schema}.{table}.{column}"
        return not any(fnmatchcase(name, p) for p in self.exclude_columns)

    def identity_wanted(self, full_name: str) -> str | Sequence[str] | Derived:
        """What is configured to identify the table's rows, see above."""
        found = (v for p, v in self.identity.items() if fnmatchcase(full_name, p))
        return next(found, SYNC_ID)

    def derives(self, full_name: str) -> bool:
        """Whether the identity is computed of the columns that `identity_of` names."""
        return isinstance(self.identity_wanted(full_name), Derived)

    def identity_of(
        self, schema: str, table: str, columns: Sequence[str], primary_key: Sequence[str]
    ) -> tuple[str, ...]:
        """The columns that make the row's key, or of which it is derived; raises Misconfigured
        where the table has none of what was asked.
        """
        name = f"{schema}.{table}"
        wanted = self.identity_wanted(name)
        if isinstance(wanted, Derived):
            wanted = wanted.of
            if SYNC_ID in columns:
                raise Misconfigured(
                    f"found a column {SYNC_ID} on {name}, whose identity is to be derived",
                    hint="let the column identify the rows (take the table out of identity), or "
                    f'leave it out: exclude_columns = ["{name}.{SYNC_ID}"]',
                )
        if wanted == "primary_key":
            if primary_key:
                return tuple(primary_key)
            raise Misconfigured(
                f"found no primary key on {name}, which is configured to be identified by it",
                hint=f"give {name} a primary key or a sync_id column, or exclude it",
            )
        names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
        missing = [n for n in names if n not in columns]
        if not missing:
            return names
        raise Misconfigured(
            f"found no column {', '.join(missing)} on {name}",
            hint=f'add it (unique, not null), set identity."{name}" = "primary_key" or to the '
            "columns of its natural key, or exclude the table",
        )
