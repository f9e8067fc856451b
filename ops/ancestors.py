"""Rows that a target needs as ancestors (apply/ancestors.py) are asked of whoever captures its
source, as a copy for this target alone.

Nothing is kept here: what was not asked for, and what a request did not bring, is found in the
target again. A request that is made twice, by a crash in between, brings the same rows twice.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import orjson

from apply.target import Target
from ops.compose import target_config
from ops.config import Config
from ops.resync import KEYS
from schemas.change import Batch
from schemas.progress import asked_copies
from schemas.table import Table
from transport.asked import upto
from transport.log import Log
from transport.record import Request


class Asking:
    """One attempt's; does nothing where no table brings ancestors. log: opens the source's log."""

    def __init__(
        self, config: Config, target: Target, log: Callable[[], AbstractContextManager[Log]]
    ) -> None:
        self._target, self._log = target, log
        exceptions = target_config(config, target.name).exceptions.values()
        self._is_needed = any(one.ancestors for one in exceptions)
        self._has_begun = self._has_looked_back = False

    def applied(self, batch: Batch | None) -> None:
        """A batch was applied, or nothing is left to apply: ask for what is wanted now."""
        if not self._is_needed:
            return
        if not self._has_begun:
            # The exception may be new: what is missing was there before it.
            self._has_begun = True
            self._target.retry([])
        if batch is not None and not self._has_looked_back:
            # Once: what is refused again would be asked for without end.
            self._has_looked_back = True
            copies = asked_copies(batch.progress)
            copying = [int(n) for n, copy in copies.items() if copy["state"] == "copying"]
            self._target.ask_again(upto(batch.progress), copying)
        wanted = self._target.wanted()
        if not wanted:
            return
        tables = {table.full_name: table for table in self._target.tables()}
        with self._log() as log:
            for name, identities in wanted.items():
                for at in range(0, len(identities), KEYS):
                    some = identities[at : at + KEYS]
                    keys = {"keys": [key_of(tables[name], text) for text in some]}
                    request = Request(
                        what="copy", tables={name: keys}, for_target=self._target.name
                    )
                    self._target.was_asked(name, some, log.ask(request))


def key_of(table: Table, text: str) -> str:
    """The wire key of an identity of one column, given as its text."""
    (name,) = table.identity
    is_number = table.by_name[name].kind.name == "int"
    return orjson.dumps({name: int(text) if is_number else text}).decode()


def keys_of(table: Table, identities: Sequence[str]) -> frozenset[bytes]:
    """The wire keys of these."""
    return frozenset(key_of(table, text).encode() for text in identities)
