"""What of a table's differences is only incomplete: rows that stand for parents which have not come
(docs/parking.md), and references to those of which the target knows no identity.
"""

from collections.abc import Collection

from apply.placeholders import Placeholder
from ops.verify_looks import Suspect
from schemas.canonical import canonical
from schemas.checksum import key_text
from schemas.codec import Wire
from schemas.kinds import Kind
from schemas.ranges import Compared, Key


class Incomplete:
    """One table's, among all placeholders of a target."""

    def __init__(self, compared: Compared, placeholders: Collection[Placeholder]) -> None:
        mine = [p for p in placeholders if p.table_name == compared.table.full_name]
        self.rows = len(mine)
        self._names, self._identities = compared.names, {p.identity.lower() for p in mine}
        self._references = {
            column: {
                key_text([parent.identity], [_form(parent.kind, p.identity)])
                for p in placeholders
                if p.table_name == parent.table.full_name and not p.is_named
            }
            for column, parent in compared.parents.items()
        }

    def is_placeholder(self, key: Key) -> bool:
        """Whether the row of this identity is one."""
        return len(key) == 1 and str(key[0]).lower() in self._identities

    def leads_to_one(self, suspect: Suspect) -> bool:
        """Whether nothing of a row differs but references to such placeholders."""
        if suspect.source is None or suspect.target is None:
            return False
        pairs = list(zip(self._names, suspect.source, suspect.target, strict=True))
        unequal = [(name, theirs) for name, ours, theirs in pairs if ours != theirs]
        leads = (theirs in self._references.get(name, ()) for name, theirs in unequal)
        return bool(unequal) and all(leads)


def _form(kind: Kind, identity: str) -> Wire:
    return canonical(kind)(int(identity) if kind.name == "int" else identity)
