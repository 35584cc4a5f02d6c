"""The requests that are sent: bodies, wrk runs, single large bodies, and the time until /ping answers 200."""

from __future__ import annotations

import http.client
import random
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from processes import HERE, STATUS_PATH, Server
from shared.processes import RunError, get

PATH = "/invocations"
ANSWER = b'{\n    "predictions": [3.5, 4.0, 5.5\n    ]\n}'
MB = 1_000_000
COLUMNS = 100
START_DELAY_MS = 1000
# What the slow model takes, by a command to the fake model server.
SLOW_MS = 100
# Figures of a wrk run that have to be zero.
TROUBLES = ("connect_errors", "read_errors", "write_errors", "timeouts", "bad_statuses")


@dataclass(frozen=True)
class Body:
    path: Path
    content_type: str

    @property
    def size(self) -> int:
        return self.path.stat().st_size


@dataclass(frozen=True)
class Result:
    """Of one wrk run."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def small_json(directory: Path) -> Body:
    return _body(directory / "small.json", "application/json", b'{"instances": [1.0, 2.0, 5.0]}')


def slow_json(directory: Path) -> Body:
    text = f'{{"instances": [1.0, 2.0, 5.0], "fake": {{"delay_ms": {SLOW_MS}}}}}'
    return _body(directory / "slow.json", "application/json", text.encode())


def large_json(directory: Path, size: int) -> Body:
    rows = ["[" + ", ".join(row) + "]" for row in _rows()]
    text = ", ".join(_repeat(rows, size))
    return _body(directory / f"{size}.json", "application/json", f'{{"instances": [{text}]}}'.encode())


def csv(directory: Path, size: int) -> Body:
    text = "\n".join(_repeat([",".join(row) for row in _rows()], size))
    return _body(directory / f"{size}.csv", "text/csv", f"{text}\n".encode())


def _body(path: Path, content_type: str, content: bytes) -> Body:
    path.write_bytes(content)
    return Body(path, content_type)


def _rows() -> list[list[str]]:
    """A thousand rows of numbers of different lengths, the same in every run."""
    numbers = random.Random(1)
    return [[f"{numbers.uniform(-1000, 1000):.{numbers.randint(0, 7)}f}" for _ in range(COLUMNS)] for _ in range(1000)]


def _repeat(rows: list[str], size: int) -> list[str]:
    """Rows over and over, to about so many bytes."""
    mean = sum(map(len, rows)) / len(rows) + 1.5
    return [rows[i % len(rows)] for i in range(round(size / mean))]


def post(port: int, body: Body) -> bytes:
    """Sends one body and returns the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60, blocksize=1 << 20)
    with body.path.open("rb") as content:
        headers = {"Content-Type": body.content_type, "Content-Length": str(body.size)}
        connection.request("POST", PATH, content, headers)
        answer = connection.getresponse()
        text = answer.read()
    connection.close()
    if answer.status != 200:
        raise RunError(f"port {port} answered {answer.status} to {body.path.name}: {text[:500]!r}")
    return text


def wrk(port: int, body: Body, connections: int, seconds: int) -> Result:
    """Loads a server; any status from 400 on and any broken connection fails the run."""
    url = f"http://127.0.0.1:{port}{PATH}"
    load = [f"-t{min(2, connections)}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency"]
    argv = ["wrk", *load, "-s", HERE / "wrk.lua", url, "--", body.path, body.content_type]
    try:
        run = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 40)
    except subprocess.TimeoutExpired as error:
        raise RunError(f"wrk did not end in time: {error}") from None
    lines = [line for line in run.stdout.splitlines() if line.startswith("FIGURES ")]
    if run.returncode != 0 or len(lines) != 1:
        raise RunError(f"wrk failed with {run.returncode}:\n{run.stdout}{run.stderr}")
    figures = {name: int(value) for name, value in (pair.split("=") for pair in lines[0].split()[1:])}
    troubles = [f"{figures[name]} {name}" for name in TROUBLES if figures[name]]
    if troubles or not figures["requests"]:
        what = f"{url}, {body.path.name}, {connections} connections: {', '.join(troubles) or 'no answer'}"
        raise RunError(f"ERRORS UNDER LOAD: {what}\n{run.stdout}")
    return Result(
        requests=figures["requests"],
        seconds=figures["duration_us"] / 1e6,
        p50_ms=figures["p50_us"] / 1e3,
        p99_ms=figures["p99_us"] / 1e3,
    )


def start_ms(server: Server) -> float:
    """From the start of a server, which has only just been started, to its first 200 on /ping."""
    ready = _first_answer(server.port, "/ping")
    if ready is None:
        raise RunError(f"{server.process.args[0]} did not become ready")
    return (ready - server.process.begin) * 1000


def readiness_ms(server: Server) -> float:
    """From the backend's first AVAILABLE to the first 200 on /ping of a server that was just started."""
    seen: dict[str, float | None] = {}

    def watch(name: str, *where) -> None:
        seen[name] = _first_answer(*where)

    watchers = [
        threading.Thread(target=watch, args=("backend", server.backend_port, STATUS_PATH, b'"AVAILABLE"'), daemon=True),
        threading.Thread(target=watch, args=("ping", server.port, "/ping"), daemon=True),
    ]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    if None in seen.values():
        raise RunError(f"not all became ready: {seen}")
    # Both are seen a little late, by a poll's length: somewhat below zero is the same moment.
    passed = (seen["ping"] - seen["backend"]) * 1000
    if passed < -20:
        raise RunError(f"/ping answered 200 {-passed:.0f} ms before the backend was available")
    return max(passed, 0.0)


def _first_answer(port: int, path: str, wanted: bytes = b"") -> float | None:
    """When the first 200 came that holds `wanted`; None: it did not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    deadline = time.monotonic() + START_DELAY_MS / 1000 + 15
    try:
        while time.monotonic() < deadline:
            answer = get(connection, path)
            if answer and answer[0] == 200 and wanted in answer[1]:
                return time.monotonic()
            time.sleep(0.001)
    finally:
        connection.close()
    return None
