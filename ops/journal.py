"""The program's own structured lines on stderr: JSON, or readable text on a terminal.

Invariant: facts are snake_case with keys, at most one line a second from a loop, never row values.
"""

import logging
import os
import sys
from typing import Any

import structlog


def begin(*, debug: bool = False) -> None:
    """Set up this process's lines; HEADWATER_LOG=json or console overrides the choice."""
    console = os.environ.get("HEADWATER_LOG", "console" if sys.stderr.isatty() else "json")
    renderer: Any = structlog.processors.JSONRenderer()
    if console == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if debug else logging.INFO
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def get(**facts: str) -> Any:
    """A logger whose every line carries these facts."""
    return structlog.get_logger(**facts)
