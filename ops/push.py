"""`headwater push`: update all children now, and say which have what the source had at that moment.

The source is asked for the place where its log ends now (the goal). A child with a `prompt_url` is
prompted, and its answers say where it stands; of any other one its database does. A child that is
away or paused is listed and holds up nobody.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import orjson

from capture.source import Source
from ops.backlog import Backlog, backlog
from ops.compose import opened_log, opened_source, opened_target, source_config
from ops.config import Config, TargetConfig
from ops.supervise import Signals
from ops.verify_fence import Records
from schemas.change import Offset, Position
from schemas.errors import HeadwaterError
from transport.log import Log
from transport.record import Checkpoint

LOOK_S = 0.5
JUDGE_S = 0.1
ANSWER_S = 5.0
ANSWER_BYTES = 1 << 16

State = Literal["applied", "behind", "stopped", "paused", "unreachable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a child says it stands. error: why it does not go on, or why nobody knows."""

    is_reachable: bool = True
    is_paused: bool = False
    batch: int | None = None
    position: Position | None = None
    offset: Offset | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """One child at the end. behind: reachable and on its way. stopped: reachable, and it did not
    move. missed: what the log holds that it has not applied; None: it is not known.
    """

    target: str
    state: State
    why: str | None = None
    batch: int | None = None
    position: str | None = None
    missed: Backlog | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """is_captured: the log holds what the source had when asked, which stood at `position`."""

    source: str
    position: Position
    is_captured: bool
    targets: Sequence[Pushed]

    @property
    def exit_code(self) -> int:
        """0: every child has it. 3: every one that can be reached and is not paused. 1: not even
        those.
        """
        states = {pushed.state for pushed in self.targets}
        if states & {"behind", "stopped"}:
            return 1
        return 3 if states - {"applied"} else 0


class _Child:
    """One target as it is looked at again and again, by a thread of its own: one that does not
    answer holds up nobody, the end of this process neither.
    """

    def __init__(self, config: Config, name: str) -> None:
        self._config, self.name = config, name
        self._first: Place | None = None
        self._since_s = monotonic()
        self._is_over = threading.Event()
        self.place = Place(is_reachable=False, error=f"did not answer in {ANSWER_S:.0f} s")
        self.has_answered = self.has_applied = False
        self.error: str | None = None
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        """Prompt it, or ask its database, until it has applied all or is looked at no more."""
        settings = self._config.targets[self.name]
        asked = _prompted if settings.prompt_url else _stored
        while not (self._is_over.is_set() or self.has_applied):
            place = asked(self._config, self.name, settings)
            if place.is_reachable and self._first is None:
                self._first = place
            self.place, self.has_answered = place, True
            self._is_over.wait(LOOK_S)

    def judge(self, source: Source, log: Log, goal: Position) -> None:
        """Whether it has applied all up to `goal`, by its place or because nothing is between."""
        place = self.place
        at, offset = place.position, place.offset
        if self.has_applied or offset is None:
            return
        try:
            if at and source.reached(goal, at):
                self.has_applied = True
                return
            ahead = Records(log, self.name).reached(offset)
            self.has_applied = ahead is not None and source.reached(goal, ahead)
            self.error = None
        except HeadwaterError as error:
            self.error = f"{error}; {error.hint}"

    @property
    def is_waited_for(self) -> bool:
        """Whether it is on its way, as far as anybody knows."""
        if not self.has_answered:
            return monotonic() - self._since_s < ANSWER_S
        return not self.has_applied and self.place.is_reachable and not self.place.is_paused

    def end(self, log: Log) -> Pushed:
        """Look no more; what is said of it."""
        self._is_over.set()
        place, missed = self.place, None
        if place.is_reachable and not self.has_applied:
            try:
                missed = backlog(log, self.name, place.offset)
            except HeadwaterError as error:
                self.error = f"{error}; {error.hint}"
        moved = self._first is not None and self._first.offset != place.offset
        state: State = "behind" if moved else "stopped"
        if self.has_applied:
            state = "applied"
        elif not place.is_reachable:
            state = "unreachable"
        elif place.is_paused:
            state = "paused"
        why = None if self.has_applied else self.error or place.error
        return Pushed(
            target=self.name,
            state=state,
            why=why,
            batch=place.batch,
            position=place.position,
            missed=missed,
        )


def push(
    config: Config,
    name: str,
    signals: Signals,
    *,
    wait_s: float,
    seen: Callable[[int, int], None] = lambda applied, of: None,
) -> Report:
    """Prompt every child, and wait until each one that can be reached has applied what the source
    has now, at most wait_s; seen: told how many have, of how many.
    """
    source_config(config, name)
    with opened_source(config, name) as source, opened_log(config, name) as log:
        goal, _ = source.now()
        children = [_Child(config, target) for target in config.targets_of(name)]
        deadline = monotonic() + wait_s
        while True:
            for child in children:
                child.judge(source, log, goal)
            seen(sum(c.has_applied for c in children), len(children))
            waited = [c for c in children if c.is_waited_for]
            # Without any wait, too, each is asked once.
            if not waited or (monotonic() >= deadline and all(c.has_answered for c in waited)):
                break
            signals.wait(JUDGE_S)
        return Report(
            source=name,
            position=goal,
            is_captured=_is_captured(source, log, goal),
            targets=[child.end(log) for child in children],
        )


def _is_captured(source: Source, log: Log, goal: Position) -> bool:
    span = log.span()
    end = Checkpoint.loads(span[1]).position if span else None
    return end is not None and source.reached(goal, end)


def _stored(config: Config, name: str, settings: TargetConfig) -> Place:
    """By its own database."""
    try:
        with opened_target(config, name) as target:
            applied, paused = target.applied(), target.paused()
    except HeadwaterError as error:
        return Place(is_reachable=False, error=str(error))
    if applied is None:
        return Place(is_paused=paused is not None, error="has applied nothing yet")
    return Place(
        is_paused=paused is not None,
        batch=applied.batch,
        position=Position(applied.position),
        offset=applied.offset,
    )


class _Unmoved(HTTPRedirectHandler):
    """A redirect would carry the token to somebody else."""

    def redirect_request(self, *args: object) -> None:
        return None


def _prompted(config: Config, name: str, settings: TargetConfig) -> Place:
    """By its answer to a prompt."""
    request = Request(
        settings.prompt_url or "",
        data=b"",
        headers={"Authorization": f"Bearer {settings.prompt_token}"},
        method="POST",
    )
    try:
        with build_opener(_Unmoved).open(request, timeout=ANSWER_S) as answer:
            said = orjson.loads(answer.read(ANSWER_BYTES))
    except HTTPError as error:
        error.close()
        hint = "; is its prompt_token the same there?" if error.code == 401 else ""
        return Place(is_reachable=False, error=f"answered the prompt with {error.code}{hint}")
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        return Place(is_reachable=False, error=f"nobody takes prompts: {reason}")
    except ValueError:
        return Place(is_reachable=False, error="answered the prompt with something else")
    known = said if isinstance(said, dict) else {}
    if (known.get("target"), known.get("source")) != (name, settings.source):
        return Place(is_reachable=False, error=f"answers for another target than {name}")
    return _place(known)


def _place(known: Mapping[str, Any]) -> Place:
    """An answer; what is not of its form is left out."""
    texts = [known.get(key) for key in ("position", "offset", "error")]
    position, offset, error = (text if isinstance(text, str) else None for text in texts)
    batch = known.get("batch")
    return Place(
        is_paused=known.get("paused") is True,
        batch=batch if isinstance(batch, int) else None,
        position=None if position is None else Position(position),
        offset=None if offset is None else Offset(offset),
        error=error,
    )
