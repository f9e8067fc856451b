"""At most so many rows a second, with a little credit for a time without."""

from time import monotonic

CREDIT_S = 2.0


class Throttle:
    """rate: rows a second; None: no limit. One chunk is read at a time where there is one."""

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
