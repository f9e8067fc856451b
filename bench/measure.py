"""What a measurement gives: samples, taken in processes of their own, and figures made of them.

Invariant: ours and the other side take turns, so that a busy machine slows both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import psutil

REPETITIONS = 3

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One repetition. cpu_s: of the measured process, without servers; peak_mb: resident."""

    rows: int
    wall_s: float
    cpu_s: float
    peak_mb: float

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.wall_s

    @property
    def cpu_us(self) -> float:
        """Processor time a row, in microseconds."""
        return self.cpu_s / self.rows * 1e6


class Unmeasured(Exception):
    """Everything had come by the first look: ask for more --rows."""


def counted(rows: int, seen: int, what: str) -> int:
    """The rows that came after the first look, at which `seen` were there; raises Unmeasured."""
    if seen >= rows:
        raise Unmeasured(f"{what}: all {rows:,} rows had come by the first look: ask for more")
    return rows - seen


class Clock:
    """Sums the time inside its `with` blocks; what stands between them is preparation."""

    def __init__(self) -> None:
        self._wall = self._cpu = 0.0

    def __enter__(self) -> Self:
        self._wall -= perf_counter()
        self._cpu -= process_time()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._wall += perf_counter()
        self._cpu += process_time()

    def sample(self, rows: int) -> Sample:
        """What was measured, for this many rows."""
        return Sample(rows=rows, wall_s=self._wall, cpu_s=self._cpu, peak_mb=peak_mb())


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used so far. cpu_s: processor time; peak_mb: resident,
    the sum of each one's own peak.
    """

    cpu_s: float
    peak_mb: float

    @classmethod
    def of(cls, process: psutil.Process) -> Self:
        """Read it from the kernel; the process must be running."""
        family = [process, *process.children(recursive=True)]
        times = [member.cpu_times() for member in family]
        cpu_s = sum(t.user + t.system + t.children_user + t.children_system for t in times)
        return cls(float(cpu_s), sum(peak_mb(member.pid) for member in family))


def peak_mb(process: int | str = "self") -> float:
    """The most memory a process had resident, in MB.

    VmHWM, because getrusage's figure starts at the parent's after a fork.
    """
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) / 1024


def isolated(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call in a fresh process, so that its memory and processor time are its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the report. values: a figure for each repetition; peer: what stands beside it.

    cpu_us, peak_mb: medians, for ours and the peer; None where they say nothing. less: the smaller
    value is the better one. facts: what else a reader should know, by name.
    """

    bench: str
    what: str
    unit: str
    values: Sequence[float]
    cpu_us: float | None = None
    peak_mb: float | None = None
    peer: str | None = None
    peer_values: Sequence[float] = ()
    peer_cpu_us: float | None = None
    peer_peak_mb: float | None = None
    less: bool = False
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def peer_value(self) -> float | None:
        return median(self.peer_values) if self.peer_values else None

    @property
    def ratio(self) -> float | None:
        """How many times as good as the peer ours is."""
        if not self.peer_value or not self.value:
            return None
        return self.peer_value / self.value if self.less else self.value / self.peer_value

    def line(self) -> str:
        """The figure for people."""
        ours = _side(self.values, self.unit, self.cpu_us, self.peak_mb)
        text = f"{self.bench:<16} {self.what:<8} {ours}"
        if self.ratio is not None:
            theirs = _side(self.peer_values, self.unit, self.peer_cpu_us, self.peer_peak_mb)
            text += f"; {self.ratio:.2f} x {self.peer}: {theirs}"
        return text


def _side(values: Sequence[float], unit: str, cpu_us: float | None, peak: float | None) -> str:
    facts = [f"min {_number(min(values))}"]
    if cpu_us is not None:
        facts.append(f"{cpu_us:.1f} µs CPU/row")
    if peak is not None:
        facts.append(f"{peak:.0f} MB")
    return f"{_number(median(values))} {unit} ({', '.join(facts)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def compared(
    bench: str, what: str, ours: Sequence[Sample], peer: str | None, theirs: Sequence[Sample]
) -> Figure:
    """Rates of ours beside rates of the peer."""
    return Figure(
        bench=bench,
        what=what,
        unit="rows/s",
        values=[s.rate for s in ours],
        cpu_us=median(s.cpu_us for s in ours),
        peak_mb=median(s.peak_mb for s in ours),
        peer=peer,
        peer_values=[s.rate for s in theirs],
        peer_cpu_us=median(s.cpu_us for s in theirs) if theirs else None,
        peer_peak_mb=median(s.peak_mb for s in theirs) if theirs else None,
    )


def costs(
    bench: str, what: str, ours: Sequence[Sample], peer: str, theirs: Sequence[Sample]
) -> Iterator[Figure]:
    """The processor time and the memory of the same samples, each as a figure of its own."""
    for unit, of in (("CPU s/million rows", _cpu_us), ("MB resident", _peak_mb)):
        yield Figure(
            bench=bench,
            what=what,
            unit=unit,
            values=[of(s) for s in ours],
            peer=peer,
            peer_values=[of(s) for s in theirs],
            less=True,
        )


def _cpu_us(sample: Sample) -> float:
    # A microsecond a row is a second a million rows.
    return sample.cpu_us


def _peak_mb(sample: Sample) -> float:
    return sample.peak_mb


def by_turns(
    *sides: Callable[[int], Sequence[Sample]],
) -> Iterator[list[Sample]]:
    """Let each side measure REPETITIONS times, taking turns; every sample of each stage.

    Each call gives one sample for each of its stages; the result has the first side's stages
    first.
    """
    turns = [[side(number) for side in sides] for number in range(REPETITIONS)]
    for side in range(len(sides)):
        for stage in range(len(turns[0][side])):
            yield [turn[side][stage] for turn in turns]
