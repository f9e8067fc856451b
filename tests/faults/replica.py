"""Source, log in memory and target in this process, moved step by step: for tests of one part.

The command's own processes are in pipeline.py. Invariant: `catch_up` returns when the target has
applied everything that was committed in the source before the call.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from apply.declared import told_parents
from apply.loop import apply
from apply.target import Placement, Target
from capture.pace import Pace
from capture.snapshot import with_copies
from capture.source import Source
from ops.compose import opened_source, opened_target
from ops.config import Config
from ops.verify import verify
from ops.verify_fence import Records
from ops.verify_report import Report
from schemas.change import Piece
from schemas.progress import pending
from tests.faults.pipeline import schema_of, user_url
from tests.services.database import Database
from transport.log import Log
from transport.memory import MemoryLog, MemoryStore


@dataclass(slots=True)
class Replica:
    """Both sides and the log between them."""

    source: Source
    log: Log
    target: Target
    placement: Placement
    chunk_rows: int = 3
    copies: dict[str, bool] = field(default_factory=dict)

    def capture(self, seen: Callable[[Piece], None] = lambda piece: None) -> None:
        """Copy into the log what the source has committed by now, and all copies to their end.

        seen: told of each piece once it is in the log.
        """
        opened = self.log.open()
        high = self.source.now()[0]
        left = pending(opened.progress, None)
        wanted = {t.full_name: "rows" for t in self.source.describe()}
        pieces = with_copies(
            self.source,
            opened,
            wanted,  # type: ignore[arg-type]
            pace=Pace(rows=self.chunk_rows),
            asked=self.log.requests,
            after=told_parents([self.placement]),
        )
        for piece in pieces:
            self.log.append(piece)
            seen(piece)
            commit = piece.commit
            if commit is None:
                continue
            if commit.progress is not None:
                left = pending(commit.progress, None)
            if not left and self.source.reached(high, commit.position):
                break
        accepted = self.log.flush()
        if accepted is not None:
            self.source.ack(accepted)
        pieces.close()  # type: ignore[attr-defined]

    def apply(self) -> None:
        """Apply the log to its end."""
        apply(self.log, self.target, follow=False)

    def catch_up(self) -> None:
        """Capture, then apply."""
        self.capture()
        self.apply()

    def verify(self, *, moving: bool = True, **options: Any) -> Report:
        """Compare; with `moving` the pipeline goes on whenever the comparison waits for it.

        options: of ops.verify.verify.
        """

        def pause(seconds: float) -> None:
            if moving:
                self.catch_up()

        given = {
            "timeout_s": 60 if moving else 0,
            "records": Records(self.log, self.target.name),
            "pause": pause,
        }
        return verify(self.source, self.target, self.placement, **(given | options))


@contextmanager
def replica(
    name: str,
    source: Database,
    target: Database,
    source_settings: Mapping[str, object] = MappingProxyType({}),
    **target_settings: object,
) -> Iterator[Replica]:
    """Both sides set up as `headwater prepare` does, and a log that holds nothing yet."""
    config = Config.model_validate(
        {
            "sources": {
                name: {
                    "url": user_url(source),
                    "include": [f"{schema_of(source)}.*"],
                    **source_settings,
                }
            },
            "targets": {
                "mirror": {
                    "url": user_url(target),
                    "source": name,
                    "schemas": {schema_of(source): schema_of(target)},
                    **target_settings,
                }
            },
        }
    )
    with (
        opened_source(config, name) as opened,
        opened_target(config, "mirror") as mirror,
        closing(MemoryLog(name, MemoryStore())) as log,
    ):
        opened.prepare()
        mirror.prepare(opened.describe())
        yield Replica(opened, log, mirror, config.targets["mirror"].placement)
