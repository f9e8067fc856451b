"""Capture: source -> log, and only then is the source allowed to forget.

No retry, no logging, no stop flag here: ops/supervise.py reopens after Transient errors and stops
between pieces.
"""

from collections.abc import Callable, Iterator

from capture.source import Source
from schemas.change import Piece, Position
from schemas.faults import reach
from transport.log import Log, Opened


def capture(
    source: Source,
    log: Log,
    *,
    stream: Callable[[Opened], Iterator[Piece]] | None = None,
    seen: Callable[[Piece], None] = lambda piece: None,
) -> None:
    """Copy changes into the log until an error or the supervisor ends it.

    stream: what to copy, by default the source's own stream; capture/snapshot.py gives one with
    first copies in it. seen: told of each piece after it was appended.
    """
    opened = log.open()
    pieces = stream(opened) if stream else source.stream(opened.position, opened.stamp)
    acknowledged: Position | None = None
    reach("before-read")
    for piece in pieces:
        reach("after-read")
        reach("before-append")
        log.append(piece)
        reach("after-append")
        seen(piece)
        accepted = log.accepted()
        if accepted is not None and accepted != acknowledged:
            reach("before-acknowledge")
            source.ack(accepted)
            acknowledged = accepted
            reach("after-acknowledge")
        reach("before-read")
