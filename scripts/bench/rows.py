"""The rows of the tables, what a run of one server shows, and how both read."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

MB = 1_000_000
NONE = "–"


@dataclass(frozen=True)
class Run:
    """One server under one load for some seconds."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    # Bytes of a body, and the most memory of the server in bytes.
    size: int
    peak: int
    # Seconds of processor time of the server and its Python workers, and voluntary switches of the server alone.
    cpu: float
    switches: int


@dataclass(frozen=True)
class Figure:
    """A figure of a run. `combine` makes one figure of several runs; only medians are compared, round by round."""

    name: str
    unit: str
    of: Callable[[Run], float]
    combine: Callable = statistics.median


RATE = Figure("", "requests/s", lambda run: run.requests / run.seconds)
MB_RATE = Figure("", "MB/s", lambda run: run.requests * run.size / MB / run.seconds)
P50 = Figure("p50", "ms", lambda run: run.p50_ms)
P99 = Figure("p99", "ms", lambda run: run.p99_ms)
CPU = Figure("CPU time per request", "µs", lambda run: run.cpu / run.requests * 1e6)
SWITCHES = Figure("voluntary switches per request", "", lambda run: run.switches / run.requests)
PEAK = Figure("peak memory", "MB", lambda run: run.peak / MB, max)


@dataclass(frozen=True)
class Row:
    """What was measured of sagemaker-tfs, and of what it is compared with."""

    work: str
    # Tuples stand only in the table of --container, which shows figures without and with handlers in a row.
    ours: float | tuple[float, ...]
    unit: str
    base: float | tuple[float, ...] | None = None
    # Ours to the base in each round.
    ratios: tuple[float, ...] = ()
    # A floor, which must not be missed, and an aim: of the median ratio, or of ours in a row without ratios.
    at_least: tuple[float | str, ...] = ()
    at_most: tuple[float | str, ...] = ()
    # Follows the figure in its cell.
    more: str = ""

    def meets_floor(self) -> bool:
        value = statistics.median(self.ratios) if self.ratios else self.ours
        return not (self.at_least and value < self.at_least[0] or self.at_most and value > self.at_most[0])

    def cells(self) -> list[str]:
        unit, words = "x" if self.ratios else self.unit, "at most " if self.at_most else ""
        limits = (*self.at_least, *self.at_most)
        limits = [limit if isinstance(limit, str) else words + quantity(limit, unit) for limit in limits]
        base = NONE if self.base is None else quantity(self.base, self.unit)
        ours = ", ".join(filter(None, (quantity(self.ours, self.unit), self.more)))
        return [self.work, base, ours, spread(self.ratios), *limits, *[NONE] * (2 - len(limits))]


def compared(work: str, figure: Figure, base: list[Run], ours: list[Run], **limits) -> Row:
    """A row with a figure of the runs of two servers that took turns."""
    left, right = [figure.of(run) for run in base], [figure.of(run) for run in ours]
    found = ratios(left, right) if figure.combine is statistics.median else ()
    return Row(work, figure.combine(right), figure.unit, figure.combine(left), found, **limits)


def ratios(base: list[float], ours: list[float]) -> tuple[float, ...]:
    return tuple(right / left for left, right in zip(base, ours, strict=True))


def name(work: str, figure: Figure, connections: int) -> str:
    return ", ".join(filter(None, (work, figure.name, f"{connections} connections")))


def quantity(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number}{unit}" if unit.startswith("x") else f"{number} {unit}".rstrip()


def spread(ratios: tuple[float, ...]) -> str:
    """The median, and of several ratios also the smallest and the largest."""
    if not ratios:
        return NONE
    ends = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.2f}x{ends}"


def table(columns: tuple[str, str], rows: list[Row]) -> str:
    head = ["work", *columns, "ratio", "floor", "aim"]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *(row.cells() for row in rows)))
