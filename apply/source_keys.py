"""The source's keys of rows that are read with local ones: of columns that hold several tables'
keys, and of keys inside documents. So the source's side is read as it is.

Looked up for a block of rows at once: local key -> identity -> the key that means it now.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from apply import referee
from apply.documents import Unreadable, turned
from apply.own import IDENTITY, REFEREE
from apply.plan import Link, Plan
from apply.server import Server
from apply.uuids import wire_text
from schemas.codec import Wire

NOBODYS, NOBODY = 0.5, "no such row"
"""In place of a number, or a text, that is no row's local key: no key of the source equals it."""

MANY = 1_000
"""So many keys are looked up in one statement."""

Rows = list[list[Wire]]


class SourceKeys:
    """Of the rows of one table; names: what their values are. connection: whose transaction is
    read; None: one of its own.
    """

    def __init__(
        self,
        server: Server,
        plan: Plan,
        links: Sequence[Link],
        names: Sequence[str],
        connection: sa.Connection | None,
    ) -> None:
        self._server, self._plan, self._connection = server, plan, connection
        self._links, self._names = links, list(names)

    def given(self, rows: Rows) -> Rows:
        """The rows, with the source's keys."""
        if not self._links or not rows:
            return rows
        images = [dict(zip(self._names, row, strict=True)) for row in rows]
        with self._connected() as connection:
            for column in dict.fromkeys(link.column for link in self._links):
                links = [link for link in self._links if link.column == column]
                held = [{k for image in images for k in link.keys_in(image)} for link in links]
                known = [
                    self._known(connection, link, sorted(filter(link.may_be, some)))
                    for link, some in zip(links, held, strict=True)
                ]
                turn = _in_document if links[0].steps is not None else _by_type
                for image in images:
                    if image[column] is not None:
                        image[column] = turn(links, known, image)
        return [list(image.values()) for image in images]

    def _known(
        self, connection: sa.Connection, link: Link, local: Sequence[str]
    ) -> Mapping[str, str]:
        """The source's keys of those local ones that are rows'."""
        found: dict[str, str] = {}
        for at in range(0, len(local), MANY):
            found |= self._some(connection, link, local[at : at + MANY])
        return found

    def _some(
        self, connection: sa.Connection, link: Link, local: Sequence[str]
    ) -> Mapping[str, str]:
        if link.is_refereed:
            r, mine = REFEREE.c, referee.live(REFEREE, self._plan.source_name, link.parent_name)
            pairs = sa.select(r.local_key, r.source_key).where(
                *mine, r.local_key.in_(map(int, local))
            )
            return {str(key): str(source) for key, source in connection.execute(pairs)}
        parent, kind, i = link.parent, link.key_kind, IDENTITY.c
        assert parent is not None, "planned"
        assert kind is not None, "of every declared link"
        key, name = parent.c[link.parent_key], parent.c[link.parent_identity]
        wanted = [self._server.from_text(sa.literal(k, sa.String), key, kind) for k in local]
        rows = connection.execute(sa.select(key, name).where(key.in_(wanted), name.is_not(None)))
        named = {
            wire_text(identity, link.identity_kind): wire_text(k, kind) for k, identity in rows
        }
        mine = [i.source == self._plan.source_name, i.table_name == link.parent_name]
        now = sa.select(i.identity, i.source_key).where(
            *mine, i.to_batch.is_(None), i.identity.in_(list(named))
        )
        return {named[identity]: source for identity, source in connection.execute(now)}

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        if self._connection is not None:
            yield self._connection
            return
        with self._server.engine.connect() as connection:
            yield connection


def _by_type(
    links: Sequence[Link], known: Sequence[Mapping[str, str]], image: Mapping[str, Any]
) -> Wire:
    value: Wire = image[links[0].column]
    nth = next((nth for nth, link in enumerate(links) if link.is_of(image)), None)
    if nth is None or links[nth].is_kept:
        return value
    key = known[nth].get(str(value))
    is_number = isinstance(value, int)
    if key is None:
        return NOBODYS if is_number else NOBODY
    return int(key) if is_number else key


def _in_document(
    links: Sequence[Link], known: Sequence[Mapping[str, str]], image: Mapping[str, Any]
) -> Wire:
    document = str(image[links[0].column])
    try:
        return turned(
            document, [k.steps or () for k in links], lambda nth, key: known[nth].get(key)
        )
    except Unreadable:
        return document
