"""The page of measurements keeps up with what can be measured; no figure is asserted."""

from __future__ import annotations

import re
from pathlib import Path

from bench.__main__ import BENCHES

PAGE = Path(__file__).parents[2] / "docs" / "measurements.md"


def test_every_bench_and_no_other_is_on_the_page_of_measurements() -> None:
    named = set(re.findall(r"\bmake bench B=([a-z-]+)", PAGE.read_text(encoding="utf-8")))
    assert named == set(BENCHES)
