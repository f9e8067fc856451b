"""Files stay readable in one sitting: none above 400 lines; the median is printed."""

from __future__ import annotations

import statistics
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "capture", "transport", "apply", "ops")
LONGEST = 400


def test_no_file_is_longer_than_the_limit() -> None:
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    written = [count for count in lines.values() if count]
    print(f"median file: {statistics.median(written):.0f} lines")
    assert {path: count for path, count in lines.items() if count > LONGEST} == {}
