"""What a source's keys mean, looked up and put right: for rows whose identity becomes known later,
or turns out to be another one.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from apply.identity import FACTS
from apply.own import IDENTITY
from apply.repoint import stage_pairs
from apply.session import Session

K = IDENTITY.c


def meant(session: Session, source: str, table: str, keys: Sequence[str]) -> dict[str, str | None]:
    """What these keys mean now; None: their rows are gone. Keys that nothing is known of are not in
    it.
    """
    stage_pairs(session, [(key, key) for key in keys])
    found = sa.select(K.source_key, K.identity, K.to_batch).where(
        *_of(source, table), K.source_key == FACTS.c.source_key
    )
    meanings: dict[str, str | None] = {}
    for key, identity, to_batch in session.connection.execute(found):
        meanings[key] = meanings.get(key) if to_batch is not None else identity
    return meanings


def known(session: Session, source: str, table: str, identities: Sequence[str]) -> set[str]:
    """Those of these identities that rows of the source have or had."""
    stage_pairs(session, [(text, text) for text in identities])
    found = sa.select(K.identity).where(*_of(source, table), K.identity == FACTS.c.identity)
    return set(session.connection.scalars(found))


def rename(session: Session, source: str, table: str, pairs: Sequence[tuple[str, str]]) -> None:
    """What was taken for these identities was others all the time: (was, is)."""
    stage_pairs(session, pairs)
    session.connection.execute(
        sa.update(IDENTITY)
        .values({K.identity: FACTS.c.identity})
        .where(*_of(source, table), K.identity == FACTS.c.source_key)
    )
    session.known.forget(session.number(table))


def unlearn(session: Session, source: str, table: str, identities: Sequence[str]) -> None:
    """Forget identities that were never any row's at the source."""
    stage_pairs(session, [(text, text) for text in identities])
    named = K.identity.in_(sa.select(FACTS.c.identity))
    session.connection.execute(sa.delete(IDENTITY).where(*_of(source, table), named))
    session.known.forget(session.number(table))


def _of(source: str, table: str) -> list[sa.ColumnElement[bool]]:
    return [K.source == source, K.table_name == table]
