"""What is sent: bodies, single requests, and wrk's load, under which servers take turns."""

import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.harness.client import Failure, request, run
from tests.harness.constants import CSV, HOST, INSTANCES, JSON, PREDICTIONS

from .rows import MB, RATE, Run, quantity
from .targets import HERE, Bench, Target, say

PATH = "/invocations"
COLUMNS = 100


@dataclass(frozen=True)
class Load:
    """Clients that post a body again and again, or without one ask for /ping."""

    connections: int
    body: Path | None = None
    content_type: str = JSON

    def __str__(self) -> str:
        return f"{self.body.name if self.body else '/ping'}, {self.connections} connections"

    @property
    def size(self) -> int:
        return self.body.stat().st_size if self.body else 0


def small_json(bench: Bench, connections: int) -> Load:
    return Load(connections, _file(bench, "small.json", INSTANCES))


def slow_json(bench: Bench, connections: int, milliseconds: int) -> Load:
    """The model takes this long to answer as it does to `small_json`."""
    text = f'{INSTANCES[:-1]}, "fake": {{"delay_ms": {milliseconds}}}}}'
    return Load(connections, _file(bench, f"{milliseconds} ms.json", text))


def large_json(bench: Bench, connections: int, megabytes: int) -> Load:
    rows = ", ".join(f"[{row}]" for row in _rows(megabytes, ", "))
    return Load(connections, _file(bench, f"{megabytes} MB.json", f'{{"instances": [{rows}]}}'))


def large_csv(bench: Bench, connections: int, megabytes: float) -> Load:
    text = "\n".join(_rows(megabytes, ",")) + "\n"
    return Load(connections, _file(bench, f"{megabytes} MB.csv", text), CSV)


def _file(bench: Bench, name: str, content: str) -> Path:
    path = bench.scratch / name
    path.write_text(content)
    return path


def _rows(megabytes: float, separator: str) -> list[str]:
    """A thousand rows of numbers of different lengths, the same in every run, over and over up to the size."""
    numbers = random.Random(1)
    rows = [
        separator.join(f"{numbers.uniform(-1000, 1000):.{numbers.randint(0, 7)}f}" for _ in range(COLUMNS))
        for _ in range(1000)
    ]
    mean = sum(map(len, rows)) / len(rows) + 1.5
    return [rows[index % len(rows)] for index in range(round(megabytes * MB / mean))]


def post(server: Target, load: Load) -> bytes:
    """Sends one body and returns the answer."""
    answer = request(server.port, "POST", PATH, load.body.read_bytes(), {"Content-Type": load.content_type})
    if answer.status != 200:
        raise Failure(f"{server.command[0]} answered {answer.status} to {load.body.name}: {answer.text[:500]}")
    return answer.body


def wrk_figures(server: Target, load: Load, seconds: int) -> dict:
    """Loads a server; what scripts/bench/wrk.lua reports, and the whole output."""
    command = ["wrk", f"-t{min(2, load.connections)}", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "30s"]
    command += ["--latency", "-s", HERE / "wrk.lua", f"http://{HOST}:{server.port}{PATH if load.body else '/ping'}"]
    command += ["--", load.body, load.content_type] if load.body else []
    output = run(*command, timeout=seconds + 40)
    return {**json.loads(output.splitlines()[-1]), "output": output}


def wrk(server: Target, load: Load, seconds: int) -> Run:
    """Loads a server; a status of 400 or more or a broken connection fails the run."""
    server.reset_peak()
    cpu, switches = server.counters()
    figures = wrk_figures(server, load, seconds)
    cpu_after, switches_after = server.counters()
    output = figures.pop("output")
    if figures.pop("failures") or not figures["requests"]:
        raise Failure(f"ERRORS UNDER LOAD: {server.command[0]}, {load}:\n{output}")
    peak = server.memory()[1]
    return Run(**figures, size=load.size, cpu=cpu_after - cpu, switches=switches_after - switches, peak=peak)


def take_turns(
    bench: Bench, plan: dict[Load, dict[str, Target]], rounds: int = 0, during: Callable = contextlib.nullcontext
) -> dict[Load, dict[str, list[Run]]]:
    """For each load and each of its servers, by name, a run in each round; `during` gets the name for each run."""
    runs = {load: {side: [] for side in sides} for load, sides in plan.items()}
    # Before anything counts, each server has given a right answer, its workers are ready and all connections made.
    for load, sides in plan.items():
        for server in sides.values():
            server.wait_ready()
            if load.body and (answer := post(server, load)) != PREDICTIONS.encode():
                raise Failure(f"{server.command[0]} answered {answer!r} to {load.body.name}, not {PREDICTIONS!r}")
            wrk(server, load, 2)
    for number in range(rounds or bench.rounds):
        for load, sides in plan.items():
            # The side that begins changes, so that being first is no advantage.
            for side, server in list(sides.items())[:: -1 if number % 2 else 1]:
                with during(side):
                    runs[load][side].append(wrk(server, load, bench.seconds))
            speeds = ", ".join(f"{side} {quantity(RATE.of(found[-1]), '')}/s" for side, found in runs[load].items())
            say(f"round {number + 1}, {load}: {speeds}")
    return runs
