"""A plot of ratios as plain SVG: one horizontal bar a figure, on a scale of powers of two."""

from __future__ import annotations

from collections.abc import Iterable
from math import log2
from xml.sax.saxutils import escape

LOWEST, HIGHEST = -4, 5
"""Powers of two at the edges: a sixteenth of the peer, 32 times the peer."""
LEFT, SCALE, ROW, TOP = 640, 60, 20, 30
BETTER, WORSE, GRID, INK = "#2a7f62", "#b4532a", "#cccccc", "#333333"


def svg(ratios: Iterable[tuple[str, float]]) -> str:
    """A bar for each name and its ratio: to the right of 1 where ours is the better."""
    found = list(ratios)
    width, height = LEFT + (HIGHEST - LOWEST) * SCALE + 60, TOP + ROW * len(found) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for mark in range(LOWEST, HIGHEST + 1):
        at = _place(mark)
        label = f"{2**mark}x" if mark >= 0 else f"1/{2**-mark}"
        parts.append(f'<path d="M{at} {TOP - 8}V{height - 5}" stroke="{GRID}"/>')
        parts.append(f'<text x="{at}" y="{TOP - 14}" text-anchor="middle">{label}</text>')
    for number, (name, ratio) in enumerate(found):
        y = TOP + ROW * number
        power = min(max(log2(ratio), LOWEST), HIGHEST)
        start, end = sorted((_place(0), _place(power)))
        color = BETTER if power >= 0 else WORSE
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{start}" y="{y + 2}" width="{max(end - start, 1):.1f}"'
            f' height="{ROW - 6}" fill="{color}"/>',
            f'<text x="{_place(max(power, 0)) + 4:.1f}" y="{y + 13}">{ratio:.2f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _place(power: float) -> float:
    return LEFT + (power - LOWEST) * SCALE
