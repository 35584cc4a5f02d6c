"""What requests cost that wait; run it through `scripts/bench.sh --workers`, which builds first.

- Small JSON at 16 and 64 connections against the yardstick: nginx with 2 workers and kept connections. Both are in
  front of nginx with one worker that returns fixed answers, so the backend takes as little as it can. Requests are
  coroutines, then keep a thread each, then pass through a pair of handlers. Ratios are taken within a round.
- 2,000 requests at once on a model that takes 1 s.
- /ping while all processors convert bodies of 100 MB.
"""

from __future__ import annotations

import argparse
import http.client
import os
import resource
import selectors
import socket
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench import add_executables, end_cleanly_on_signals, say  # first: it says where shared/ is
import load
from load import MB
from processes import HERE, Nginx, Server
from shared.processes import Processes, RunError, memory

BACKEND = HERE / "nginx_model_server"
CONNECTIONS = (16, 64)
# The name of a row, settings of the server, handlers.
SHAPES = {
    "coroutines": ("requests as coroutines", {}, None),
    "threads": ("requests on threads", {"SAGEMAKER_TFS_WORKERS": "threads"}, None),
    "pair": ("trivial pair of handlers", {}, "pair"),
}
PARTS = (*SHAPES, "many", "ping")
MANY = 2000
MODEL_SECONDS = 1.0


@dataclass
class Runs:
    """Of one server under one load."""

    results: list[load.Result] = field(default_factory=list)
    cpu_seconds: float = 0.0
    switches: int = 0

    def run(self, server: Server | Nginx, pids: list[int], body: load.Body, connections: int, seconds: int) -> None:
        cpu, switches = server.cpu_seconds(), voluntary_switches(pids)
        self.results.append(load.wrk(server.port, body, connections, seconds))
        self.cpu_seconds += server.cpu_seconds() - cpu
        self.switches += voluntary_switches(pids) - switches

    @property
    def requests(self) -> int:
        return sum(result.requests for result in self.results)

    def figures(self) -> list[str]:
        rate = statistics.median(result.per_second for result in self.results)
        p99 = statistics.median(result.p99_ms for result in self.results)
        cpu = self.cpu_seconds / self.requests * 1e6
        return [f"{rate:,.0f}", f"{p99:.2f} ms", f"{cpu:.1f} µs", f"{self.switches / self.requests:.2f}"]


def main() -> int:
    options = _options()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    end_cleanly_on_signals(120 + 20 * options.rounds * options.seconds)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-workers-") as name, Processes(Path(name)) as processes:
        os.environ["TMPDIR"] = name  # for the files of nginx
        shapes = [shape for shape in SHAPES if shape in options.parts]
        if shapes:
            rows += _against_nginx(options, processes, shapes)
        if "many" in options.parts:
            rows += [["", *row] for row in _many_at_once(options, processes)]
        if "ping" in options.parts:
            rows += [["", *row] for row in _ping_while_converting(options, processes)]
    print(_table(rows))
    return 0


def _against_nginx(options: argparse.Namespace, processes: Processes, shapes: list[str]) -> list[list[str]]:
    body = load.small_json(processes.scratch)
    nginx = Nginx(processes, BACKEND, workers="2")
    servers: dict[str, Server] = {}
    for shape in shapes:
        _, settings, handler = SHAPES[shape]
        servers[shape] = Server(processes, options.server, BACKEND, settings, handler).wait()
    for server in (nginx, *servers.values()):
        if load.post(server.port, body) != load.ANSWER:
            raise RunError(f"port {server.port} does not give the fixed answer")
        load.wrk(server.port, body, max(CONNECTIONS), 1)

    rows = []
    for connections in CONNECTIONS:
        theirs, ours = Runs(), {shape: Runs() for shape in shapes}
        for number in range(options.rounds):
            turns = [(theirs, nginx, nginx.pids)]
            turns += [(ours[shape], servers[shape], [servers[shape].process.pid]) for shape in shapes]
            # Who begins changes, so that being first is no advantage.
            for runs, server, pids in turns if number % 2 == 0 else reversed(turns):
                runs.run(server, pids, body, connections, options.seconds)
            speeds = ", ".join(f"{runs.results[-1].per_second:,.0f}/s" for runs, _, _ in turns)
            say(f"round {number + 1}/{options.rounds}, {connections} connections: {speeds}")
        rows.append([f"nginx, {connections} connections", *theirs.figures(), "–", "–"])
        for shape, runs in ours.items():
            rates = _ratio([r.per_second for r in theirs.results], [r.per_second for r in runs.results])
            p99s = _ratio([r.p99_ms for r in theirs.results], [r.p99_ms for r in runs.results])
            rows.append([f"{SHAPES[shape][0]}, {connections} connections", *runs.figures(), rates, p99s])
    for server in (nginx, *servers.values()):
        server.stop()
    return rows


def _many_at_once(options: argparse.Namespace, processes: Processes) -> list[list[str]]:
    say(f"{MANY} requests at once")
    settings = {"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(MANY)}
    server = Server(processes, options.server, options.model_server, settings).wait()
    pid = server.process.pid
    # What is allocated once is not counted, and all threads are there.
    load.wrk(server.port, load.small_json(processes.scratch), 16, 1)
    rest = memory([pid])[0]
    seconds, threads, peaks = [], [], []
    for _ in range(options.rounds):
        server.reset_peak()
        taken, most = _all_at_once(server.port, pid)
        seconds.append(taken)
        threads.append(most)
        peaks.append(memory([pid])[1])
    server.stop()
    work = f"{MANY} requests at once on a model of {MODEL_SECONDS:g} s"
    return [
        [f"{work}: all are answered after", f"{statistics.median(seconds):.2f} s"],
        ["same, threads of the server", f"{max(threads)}"],
        ["same, peak memory", f"{max(peaks) / MB:.1f} MB (at rest {rest / MB:.1f} MB)"],
    ]


def _all_at_once(port: int, pid: int) -> tuple[float, int]:
    """Seconds from the first request to the last answer, and the most threads that the server had."""
    body = f'{{"instances": [1.0], "fake": {{"delay_ms": {MODEL_SECONDS * 1000:.0f}}}}}'
    head = f"POST {load.PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(MANY)]
    waiting = selectors.DefaultSelector()
    begin = time.monotonic()
    for connection in connections:
        connection.sendall(request)
        waiting.register(connection, selectors.EVENT_READ)
    threads, left = 0, MANY
    while left:
        threads = max(threads, len(os.listdir(f"/proc/{pid}/task")))
        events = waiting.select(30)
        if not events:
            raise RunError(f"{left} of {MANY} requests were not answered within 30 s")
        for key, _ in events:
            # An answer is small, it comes whole.
            answer = key.fileobj.recv(4096)
            if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(load.ANSWER):
                raise RunError(f"answered {answer[:300]!r}")
            waiting.unregister(key.fileobj)
            left -= 1
    taken = time.monotonic() - begin
    for connection in connections:
        connection.close()
    return taken, threads


def _ping_while_converting(options: argparse.Namespace, processes: Processes) -> list[list[str]]:
    say("/ping while 100 MB bodies are converted")
    body = load.csv(processes.scratch, 100 * MB)
    content = body.path.read_bytes()
    server = Server(processes, options.server, options.model_server).wait()
    calm = _pings(server.port, options.seconds)
    over, converted, problems = threading.Event(), [], []

    def convert() -> None:
        head = f"POST {load.PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {body.content_type}\r\n"
        head = f"{head}Content-Length: {len(content)}\r\n\r\n".encode()
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
                while not over.is_set():
                    connection.sendall(head)
                    connection.sendall(content)
                    answer = connection.recv(4096)
                    if not answer.startswith(b"HTTP/1.1 200 "):
                        raise RunError(f"answered {answer[:300]!r}")
                    converted.append(len(content))
        except (OSError, RunError) as problem:
            problems.append(problem)

    clients = [threading.Thread(target=convert, daemon=True) for _ in range(os.cpu_count() or 1)]
    for client in clients:
        client.start()
    begin = time.monotonic()
    busy = _pings(server.port, 2 * options.seconds)
    per_second = sum(converted) / MB / (time.monotonic() - begin)
    over.set()
    for client in clients:
        client.join()
    server.stop()
    if problems:
        raise RunError(f"a body of 100 MB was not converted: {problems[0]}")
    work = f"/ping while {len(clients)} bodies of 100 MB are converted ({per_second:,.0f} MB/s)"
    return [["/ping at rest", _latencies(calm)], [work, _latencies(busy)]]


def _pings(port: int, seconds: float) -> list[float]:
    """Milliseconds that pings took, one after the other, every other one on a connection of its own."""
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    until, times = time.monotonic() + seconds, []
    while time.monotonic() < until:
        connection = kept if len(times) % 2 else http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        begin = time.monotonic()
        connection.request("GET", "/ping")
        answer = connection.getresponse()
        answer.read()
        times.append((time.monotonic() - begin) * 1000)
        if answer.status != 200:
            raise RunError(f"/ping answered {answer.status}")
        if connection is not kept:
            connection.close()
        time.sleep(0.001)
    kept.close()
    return times


def _latencies(times: list[float]) -> str:
    cuts = statistics.quantiles(times, n=100)
    return f"p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms, at most {max(times):.2f} ms ({len(times)} pings)"


def voluntary_switches(pids: list[int]) -> int:
    """Of all threads that these processes have now: of nginx all, of ours those of the server alone."""
    count = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                text = (task / "status").read_text()
            except OSError:
                continue  # the thread has just ended
            count += int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return count


def _ratio(base: list[float], other: list[float]) -> str:
    """The median of the rounds' ratios, with the smallest and the largest."""
    ratios = sorted(b / a for a, b in zip(base, other))
    return f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _table(rows: list[list[str]]) -> str:
    loads = [row for row in rows if row[0]]
    others = [row[1:] for row in rows if not row[0]]
    lines = []
    if loads:
        lines += [
            "| small JSON | requests/s | p99 | CPU a request | voluntary switches a request | requests/s to nginx's "
            "| p99 to nginx's |",
            "|---|---|---|---|---|---|---|",
            *("| " + " | ".join(row) + " |" for row in loads),
        ]
    if others:
        lines += ["", "| work | sagemaker-tfs |", "|---|---|", *("| " + " | ".join(row) + " |" for row in others)]
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.sh --workers", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each run")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    add_executables(parser, "server", "model-server")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RunError as problem:
        say(f"FAILED: {problem}")
        sys.exit(1)
