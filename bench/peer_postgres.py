"""What stands beside the PostgreSQL figures: other ways to do the same work."""

from __future__ import annotations

import select
from contextlib import closing
from typing import Any

import psycopg2
from psycopg2.extras import LogicalReplicationConnection

from bench.measure import Clock, Sample
from tests.services import postgres


def copy_slot(url: str, slot: str, name: str) -> str:
    """A slot that stands where `slot` does; it goes with the database."""
    with closing(postgres.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("select pg_copy_logical_replication_slot(%s, %s)", (slot, name))
    return name


def psycopg2_messages(url: str, slot: str, publication: str, rows: int) -> Sample:
    """Every message of the stream received and counted, none parsed."""
    clock, seen = Clock(), 0
    with clock:
        connection: Any = psycopg2.connect(url, connection_factory=LogicalReplicationConnection)
        cursor = connection.cursor()
        options = {"proto_version": "1", "publication_names": f'"{publication}"'}
        cursor.start_replication(slot_name=slot, decode=False, options=options)
        while seen < rows:
            message = cursor.read_message()
            if message is None:
                select.select([connection], [], [], 1)
            elif message.payload[0] == ord("I"):
                seen += 1
    sample = clock.sample(rows)
    connection.close()
    return sample
