"""A child is given up: what belongs to it is forgotten, and its rows stay."""

from collections.abc import Iterator
from dataclasses import dataclass

from ops.applying import rival
from ops.compose import opened_log, opened_target, target_config
from ops.config import Config
from schemas.errors import Operator, Transient
from schemas.progress import asked_copies
from transport.log import Log
from transport.record import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What is forgotten, or would be. was_noted: the log knew who reads by this name. cancelled:
    numbers of copies under way for it alone. statements: run in its database.
    """

    target: str
    was_noted: bool
    cancelled: list[int]
    statements: list[str]


def drop(config: Config, name: str, *, own_tables: bool, is_gone: bool, yes: bool) -> Dropped:
    """Forget a child in its source's log, and with `own_tables` Headwater's tables in its database;
    shown only without `yes`.

    is_gone: its database is not asked, nor changed. Raises Fenced where somebody applies to it, and
    Operator where its database cannot be reached.
    """
    statements: list[str] = []
    if not is_gone:
        try:
            with opened_target(config, name) as target:
                if not target.hold():
                    raise rival(name)
                # The log first: an end in between leaves what can be dropped again.
                found = _forget(config, name, yes=yes)
                statements = target.drop(dry_run=not yes) if own_tables else []
        except Transient as error:
            raise Operator(
                f"could not reach {name} to see that nobody applies to it: {error}",
                hint=f"where its database is gone for good: headwater child drop {name} --gone",
            ) from error
    else:
        found = _forget(config, name, yes=yes)
    return Dropped(target=name, was_noted=found[0], cancelled=found[1], statements=statements)


def _forget(config: Config, name: str, *, yes: bool) -> tuple[bool, list[int]]:
    with opened_log(config, target_config(config, name).source) as log:
        was_noted, copies = log.reader(name) is not None, list(_copies(log, name))
        if yes:
            for number in copies:
                log.ask(Request(what="cancel", number=number))
            log.read_by(name, None)
    return was_noted, copies


def _copies(log: Log, name: str) -> Iterator[int]:
    """The requests whose copies for this target alone are under way."""
    newest = log.history(name).record
    for number, copy in asked_copies(newest.progress if newest else {}).items():
        if copy["for"] == name and copy["state"] == "copying":
            yield int(number)
