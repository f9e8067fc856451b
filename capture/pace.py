"""How fast tables are copied."""

from dataclasses import dataclass
from time import monotonic

CREDIT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a source's tables are read: `readers` chunks at once, each of at most `rows` rows and
    about `size_bytes`; in all at most `max_rate` rows a second (None: as fast as may be).
    """

    readers: int = 2
    rows: int = 10_000
    size_bytes: int = 8 << 20
    max_rate: int | None = None


DEFAULT_PACE = Pace()


class Throttle:
    """Lets at most so many rows a second pass, with a little credit for a time without.

    rate: rows a second; None: no limit. One chunk is read at a time where there is one.
    """

    def __init__(self, rate: int | None) -> None:
        self.rate = rate
        self._free_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether a chunk may be read now."""
        return self.rate is None or monotonic() >= self._free_at

    def took(self, rows: int) -> None:
        """Count a chunk's rows."""
        if self.rate is not None:
            self._free_at = max(self._free_at, monotonic() - CREDIT_S) + rows / self.rate
