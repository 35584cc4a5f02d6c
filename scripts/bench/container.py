"""`--container CHECKOUT`: Amazon's Python container and sagemaker-tfs take turns.

Both have the same cheap model server, the same Python and the same packages.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.harness.processes import proportional_memory

from .load import Load, large_csv, post, small_json, take_turns, wrk_figures
from .parts import first_answer
from .python_container import BACKEND, PythonContainer, model_server_pids, search_path
from .rows import CPU, MB, NONE, P99, RATE, Row, compared, name
from .targets import Bench, Ours, Target, say

HANDLERS = ("", "pair")
BOTH = "without / with handlers"
CONNECTIONS = 16
# Seconds of the load under which the model server is killed, and when.
KILL_LOAD, KILL_AFTER = 5, 1
# What `_fresh` returns: work and unit.
FRESH_ROWS = (("processes besides TFS", ""), ("memory of these at rest", "MB"), ("from the start to /ping 200", "s"))


def against_container(bench: Bench) -> Iterator[Row]:
    starts: list[Callable[[str], Target]] = [
        lambda handler: PythonContainer(bench, handler),
        lambda handler: Ours(bench, handler, BACKEND, PATH=search_path()),
    ]
    with contextlib.ExitStack() as running:
        plain, pair = ([running.enter_context(start(handler)) for start in starts] for handler in HANDLERS)
        small, csv = small_json(bench, CONNECTIONS), large_csv(bench, 1, 0.1)
        for work, servers in (("small JSON", plain), ("pair of handlers", pair)):
            sides = dict(zip(("container", "ours"), servers, strict=True))
            runs = take_turns(bench, {small: sides})[small].values()
            for figure in (RATE, P99, CPU):
                yield compared(name(work, figure, CONNECTIONS), figure, *runs)
        say("100 KB of CSV")
        times = [[_post_ms(server, csv) for server in plain] for _ in range(bench.rounds)]
        yield _row("100 KB of CSV to JSON, one request", "ms", [map(statistics.median, zip(*times, strict=True))])
        say("a model server that is killed")
        lost = [_lost(server, small) for server in plain]
    # Servers that run at the same time share pages, and each would count only a part of them: one runs at a time.
    say("starts")
    fresh = [[_fresh(bench, start, handler) for start in starts] for handler in HANDLERS]
    for index, (work, unit) in enumerate(FRESH_ROWS):
        yield _row(f"{work}, {BOTH}", unit, [[found[index] for found in both] for both in fresh])
    yield _row(f"failed requests when TFS is killed once, {CONNECTIONS} connections", "", [lost])


def _row(work: str, unit: str, figures: Iterable[Iterable[float]]) -> Row:
    """A row with figures of both servers, without handlers and with, or only one of each."""
    base, ours = zip(*figures, strict=True)
    return Row(work, ours, unit, base)


def _post_ms(server: Target, load: Load) -> float:
    begin = time.monotonic()
    post(server, load)
    return (time.monotonic() - begin) * 1000


def _lost(server: Target, load: Load) -> int:
    """How many requests fail when the model server is killed once under this load."""
    killer = threading.Timer(KILL_AFTER, lambda: [os.kill(pid, signal.SIGKILL) for pid in model_server_pids(server)])
    killer.start()
    failures = wrk_figures(server, load, KILL_LOAD)["failures"]
    killer.join()
    server.wait_ready()
    return failures


def _fresh(bench: Bench, start: Callable[[str], Target], handler: str) -> list[float]:
    """Processes, memory in MB and seconds to the first 200 of /ping of a server that has just started."""
    found = []
    for _ in range(bench.rounds):
        with start(handler) as server:
            seconds = first_answer(server.port, "/ping") - server.begin
            time.sleep(1)
            pids = [*server.pids(), *server.workers()]
            found.append((len(pids), proportional_memory(pids) / MB, seconds))
    return list(map(statistics.median, zip(*found, strict=True)))


def table(rows: list[Row]) -> str:
    """The table of README.md."""
    lines = [("", "Python container", "`sagemaker-tfs`", "ratio"), ("---",) * 4]
    for row in rows:
        base, ours = (figures if isinstance(figures, tuple) else (figures,) for figures in (row.base, row.ours))
        each = [us / them for them, us in zip(base, ours, strict=True) if them and us]
        ratios = [statistics.median(row.ratios)] if row.ratios else each
        cells = (f"{' / '.join(map(_three_digits, figures))} {row.unit}".rstrip() for figures in (base, ours))
        lines.append((row.work, *cells, " / ".join(f"{ratio:.2g}x" for ratio in ratios) or NONE))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _three_digits(figure: float) -> str:
    return f"{float(f'{figure:.3g}'):,.10g}"


def how(checkout: Path) -> str:
    """What the line below the table says about the container."""
    command = ["git", "-C", checkout, "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True)
    commit = f"commit {found.stdout.strip()}" if found.returncode == 0 else "an unknown commit"
    return f"The Python container's sources are those of {commit}, run outside of its image."
