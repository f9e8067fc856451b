"""A text column as a value of another column, in the SQL of MySQL and MariaDB."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from apply import uuids
from apply.fit import family_of
from schemas.kinds import Kind


def from_text(text: Any, like: sa.Column[Any], kind: Kind | None) -> Any:
    """See Server.from_text."""
    family = family_of(like.type)
    if kind is not None and uuids.is_bytes_elsewhere(kind, family):
        return sa.func.unhex(sa.func.replace(text, "-", ""))
    if kind is not None and uuids.is_text_elsewhere(kind, family):
        text = sa.func.lower(sa.func.hex(sa.func.from_base64(text)))
        for at in (9, 14, 19, 24):
            text = sa.func.insert(text, at, 0, "-")
    elif family == "binary":
        return sa.func.from_base64(text)
    charset = getattr(like.type, "charset", None)
    if not isinstance(like.type, sa.String) or charset is None:
        return text
    collation = str(like.type.collation)
    return sa.collate(sa.type_coerce(_Using(text, charset), sa.String()), collation)


class _Using(sa.sql.functions.GenericFunction[str]):
    """CONVERT(text USING charset)."""

    inherit_cache = True
    name = "hw_convert_using"

    def __init__(self, text: Any, charset: str) -> None:
        super().__init__(text, sa.literal_column(charset))


@compiles(_Using)
def _using(element: Any, compiler: Any, **kw: Any) -> str:
    text, charset = element.clauses
    return f"CONVERT({compiler.process(text, **kw)} USING {compiler.process(charset, **kw)})"
