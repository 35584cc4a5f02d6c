"""What is sent: bodies, single requests, and wrk's load, under which servers take turns."""

from __future__ import annotations

import json
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.harness.client import Failure, request
from tests.harness.constants import CSV, HOST, INSTANCES, JSON, PREDICTIONS

from .rows import MB, RATE, Run, quantity
from .targets import HERE, Bench, Target, say

PATH = "/invocations"
COLUMNS = 100


@dataclass(frozen=True)
class Body:
    path: Path
    content_type: str

    @property
    def size(self) -> int:
        return self.path.stat().st_size


@dataclass(frozen=True)
class Load:
    """Clients that post a body again and again, or without one ask for /ping."""

    body: Body | None
    connections: int

    def __str__(self) -> str:
        return f"{self.body.path.name if self.body else '/ping'}, {self.connections} connections"


def small_json(bench: Bench) -> Body:
    return _body(bench, "small.json", JSON, INSTANCES)


def slow_json(bench: Bench, milliseconds: int) -> Body:
    """The model takes this long to answer as it does to `small_json`."""
    text = f'{INSTANCES[:-1]}, "fake": {{"delay_ms": {milliseconds}}}}}'
    return _body(bench, f"{milliseconds} ms.json", JSON, text)


def large_json(bench: Bench, megabytes: int) -> Body:
    rows = ", ".join(f"[{row}]" for row in _rows(megabytes, ", "))
    return _body(bench, f"{megabytes} MB.json", JSON, f'{{"instances": [{rows}]}}')


def large_csv(bench: Bench, megabytes: int) -> Body:
    return _body(bench, f"{megabytes} MB.csv", CSV, "\n".join(_rows(megabytes, ",")) + "\n")


def _body(bench: Bench, file: str, content_type: str, content: str) -> Body:
    path = bench.scratch / file
    path.write_text(content)
    return Body(path, content_type)


def _rows(megabytes: int, separator: str) -> list[str]:
    """A thousand rows of numbers of different lengths, the same in every run, over and over up to the size."""
    numbers = random.Random(1)
    rows = [
        separator.join(f"{numbers.uniform(-1000, 1000):.{numbers.randint(0, 7)}f}" for _ in range(COLUMNS))
        for _ in range(1000)
    ]
    mean = sum(map(len, rows)) / len(rows) + 1.5
    return [rows[index % len(rows)] for index in range(round(megabytes * MB / mean))]


def post(server: Target, body: Body) -> bytes:
    """Sends one body and returns the answer."""
    answer = request(server.port, "POST", PATH, body.path.read_bytes(), {"Content-Type": body.content_type})
    if answer.status != 200:
        raise Failure(f"{server.command[0]} answered {answer.status} to {body.path.name}: {answer.text[:500]}")
    return answer.body


def wrk(server: Target, load: Load, seconds: int) -> Run:
    """Loads a server; a status of 400 or more or a broken connection fails the run."""
    command = ["wrk", f"-t{min(2, load.connections)}", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "30s"]
    command += [
        "--latency",
        "-s",
        HERE / "wrk.lua",
        f"http://{HOST}:{server.port}{PATH if load.body else '/ping'}",
        "--",
    ]
    command += [load.body.path, load.body.content_type] if load.body else []
    server.reset_peak()
    cpu, switches = server.cpu_seconds(), server.switches()
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 40)
    cpu, switches = server.cpu_seconds() - cpu, server.switches() - switches
    if done.returncode:
        raise Failure(f"wrk failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    figures = json.loads(done.stdout.splitlines()[-1])
    if figures.pop("failures") or not figures["requests"]:
        raise Failure(f"ERRORS UNDER LOAD: {server.command[0]}, {load}:\n{done.stdout}")
    size = load.body.size if load.body else 0
    return Run(**figures, body_bytes=size, cpu_seconds=cpu, switches=switches, peak_bytes=server.memory()[1])


# The servers that take turns under a load, by name.
Sides = dict[str, Target]


def take_turns(bench: Bench, plan: dict[Load, Sides], rounds: int = 0) -> dict[Load, dict[str, list[Run]]]:
    """For each load and side a run in each round."""
    runs = {load: {side: [] for side in sides} for load, sides in plan.items()}
    # Before anything counts, each server has given a right answer, its workers are ready and all connections made.
    for load, sides in plan.items():
        for server in sides.values():
            server.wait_ready()
            if load.body and (answer := post(server, load.body)) != PREDICTIONS.encode():
                raise Failure(f"{server.command[0]} answered {answer!r} to {load.body.path.name}, not {PREDICTIONS!r}")
            wrk(server, load, 1)
    for number in range(rounds or bench.rounds):
        for load, sides in plan.items():
            # The side that begins changes, so that being first is no advantage.
            for side, server in list(sides.items())[:: -1 if number % 2 else 1]:
                with server.during():
                    runs[load][side].append(wrk(server, load, bench.seconds))
            speeds = ", ".join(f"{side} {quantity(RATE.of(found[-1]), '')}/s" for side, found in runs[load].items())
            say(f"round {number + 1}, {load}: {speeds}")
    return runs
