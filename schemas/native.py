"""The compiled hot path (native/), where it was built: the same bytes as the Python code, faster.

Everything works without it. `HEADWATER_NATIVE=off` leaves it out, for a comparison or a doubt.
"""

import os
from types import ModuleType

import structlog

INTERFACE = 8
"""The signatures this code calls; a build of others is left out."""


def load() -> ModuleType | None:
    """The extension module, or None where it is not built, not wanted, or of another version."""
    if os.environ.get("HEADWATER_NATIVE") == "off":
        return None
    try:
        import headwater_native
    except ImportError:
        return None
    if headwater_native.INTERFACE != INTERFACE:
        structlog.get_logger().warning(
            "native_of_another_version", found=headwater_native.INTERFACE, wanted=INTERFACE
        )
        return None
    return headwater_native
