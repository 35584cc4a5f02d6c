"""Draws the plots of docs/BENCHMARKS.md: labeled bars as plain SVG.

Bars need only rectangles and text. A plotting library would be an environment of 100 MB, and each of its versions would
draw other bytes from the same figures.
"""

from html import escape

from .parts import AT_REST, CONNECTIONS, LARGE, PAIR, SMALL
from .rows import CPU, P99, PEAK, RATE, Figure, Row, name, quantity
from .targets import HERE

NGINX, OURS, WITH_PAIR = "nginx", "sagemaker-tfs", "with a pair of handlers"
# In pixels: the picture, where its bars begin, how long and high a bar can be.
WIDTH, LEFT, LONGEST, HEIGHT = 720, 190, 400, 16
STYLE = HERE.joinpath("plots.css").read_text()


def plots(rows: list[Row]) -> dict[str, str]:
    """The pictures by the names of their files."""
    by_work = {row.work: row for row in rows}

    def bars(work: str, pair: str = "") -> dict[str, float]:
        found = {NGINX: by_work[work].base, OURS: by_work[work].ours}
        return found | {WITH_PAIR: by_work[pair].ours} if pair else found

    def small(figure: Figure) -> dict[str, dict[str, float]]:
        works = {count: [name(work, figure, count) for work in (SMALL, PAIR)] for count in CONNECTIONS}
        return {f"{count} connections": bars(*found) for count, found in works.items()}

    resident = {
        "at rest": bars(AT_REST),
        f"{SMALL}, 64 connections": bars(name(SMALL, PEAK, 64)),
        f"{LARGE}, 4 connections": bars(name(LARGE, PEAK, 4)),
    }
    speed = {
        "Requests per second, longer is better": ("", small(RATE)),
        "99th percentile, shorter is better": ("ms", small(P99)),
    }
    cost = {"CPU time per request": ("µs", small(CPU)), "Memory at rest and peak memory under load": ("MB", resident)}
    return {
        "speed.svg": draw("How fast are small requests?", speed),
        "cost.svg": draw("What do requests cost? Shorter is better", cost),
    }


def draw(title: str, panels: dict[str, tuple[str, dict[str, dict[str, float]]]]) -> str:
    """Panels below each other: each has a heading, a unit, and groups of bars with their names and values."""
    shapes: list[str] = []

    def text(x: float, y: int, kind: str, words: str) -> None:
        shapes.append(f'<text x="{x:.1f}" y="{y}" class="{kind}">{escape(words)}</text>')

    y = 34
    text(20, y, "title", title)
    for heading, (unit, groups) in panels.items():
        y += 34
        text(20, y, "panel", heading)
        scale = LONGEST / max(value for bars in groups.values() for value in bars.values())
        for group, bars in groups.items():
            text(20, y + 26, "group", group)
            y += 34
            for number, (series, value) in enumerate(bars.items()):
                size = f'width="{value * scale:.1f}" height="{HEIGHT}"'
                shapes.append(f'<rect x="{LEFT}" y="{y}" {size} rx="2" class="bar{number}"/>')
                text(LEFT - 8, y + 12, "series", series)
                text(LEFT + value * scale + 8, y + 12, "value", quantity(value, unit))
                y += HEIGHT + 4
    y += 16
    size = f'width="{WIDTH}" height="{y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {WIDTH} {y}" role="img">'
    head += f'<title>{escape(title)}</title><style>{STYLE}</style><rect class="page" {size} rx="6"/>'
    return "\n".join([head, *shapes, "</svg>\n"])
