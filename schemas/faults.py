"""Named places at which a test may kill the process: the crash matrix of `tests/faults/`.

Set HEADWATER_FAULT="<point>:<n>" and the n-th arrival at that point ends the process as `kill -9`
would: no handler, no flush, no goodbye. Without the variable `reach` costs one comparison per
batch, never per row.
"""

import os
import signal

POINTS = (
    "before-read",
    "after-read",
    "before-append",
    "after-append",
    "before-commit-record",
    "after-commit-record",
    "before-acknowledge",
    "after-acknowledge",
    "before-target-write",
    "after-target-write",
    "before-target-commit",
    "after-target-commit",
)

REFEREE_POINTS = ("after-reserve", "before-confirm")
"""Those that only a target with a shared referee comes by."""

_point, _, _number = os.environ.get("HEADWATER_FAULT", "").partition(":")
_left = int(_number or 1)
_known = POINTS + REFEREE_POINTS
if _point and _point not in _known:
    raise SystemExit(
        f"HEADWATER_FAULT names no fault point: {_point!r}; the points are {', '.join(_known)}"
    )


def reach(point: str) -> None:
    """Die here if the environment asked for it; called once per batch and point, see POINTS for the
    names.
    """
    if point == _point:
        _count_down()


def _count_down() -> None:
    global _left
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
