"""Measures sagemaker-tfs against nginx on this machine; run it through scripts/bench.sh, which builds first.

nginx, sagemaker-tfs and sagemaker-tfs with Python handlers take turns in front of the same kind of backend, the fake
model server with a fixed answer. Every ratio is taken within a round, and the table shows the median of the rounds:
on a shared machine speeds drift from minute to minute, ratios much less. nginx buffers large bodies in files under
TMPDIR. The handlers are in handlers/; they run in the `python3` that is found on PATH.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))

import load
from load import MB
from processes import Nginx, Server
from shared.processes import WORKER, Processes, RunError, memory

BENCHMARKS = ROOT / "docs" / "BENCHMARKS.md"
REGION = re.compile(r"(<!-- bench:start -->\n).*?(<!-- bench:end -->)", re.DOTALL)
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
NONE = "–"


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: int
    # Of the rows without nginx: handlers of several kinds, with one worker and with two.
    handler_rounds: int
    handler_seconds: int
    starts: int
    # A run that takes longer is stuck.
    limit_seconds: int


FULL = Plan(rounds=9, seconds=4, handler_rounds=3, handler_seconds=3, starts=7, limit_seconds=720)
QUICK = Plan(rounds=3, seconds=3, handler_rounds=1, handler_seconds=2, starts=3, limit_seconds=300)


@dataclass
class Row:
    work: str
    nginx: str = NONE
    ours: str = NONE
    ratio: str = NONE
    floor: str = NONE
    aim: str = NONE
    meets_floor: bool = True


@dataclass
class Side:
    """The runs of one server under one kind of load."""

    results: list[load.Result] = field(default_factory=list)
    cpu_seconds: float = 0.0
    # Most resident memory under this load, in bytes.
    peak: int = 0

    def run(self, server: Server | Nginx, body: load.Body, connections: int, seconds: int) -> None:
        server.reset_peak()
        before = server.cpu_seconds()
        self.results.append(load.wrk(server.port, body, connections, seconds))
        self.cpu_seconds += server.cpu_seconds() - before
        self.peak = max(self.peak, server.memory()[1])

    def cpu_per_1000(self) -> float:
        return self.cpu_seconds / sum(result.requests for result in self.results) * 1000

    def per_second(self) -> list[float]:
        return [result.per_second for result in self.results]


@dataclass
class Series:
    """Both servers under one kind of load, one result each a round."""

    nginx: Side = field(default_factory=Side)
    ours: Side = field(default_factory=Side)

    def compare(self, work: str, figure, unit: str, **bounds) -> Row:
        """A row with the medians of a figure and of its ratios within the rounds."""
        theirs, ours = [figure(r) for r in self.nginx.results], [figure(r) for r in self.ours.results]
        ratio, text = _ratio(theirs, ours)
        row = Row(work, _figure(statistics.median(theirs), unit), _figure(statistics.median(ours), unit), text)
        return _bounded(row, ratio, **bounds)


def main() -> int:
    options = _options()
    if options.write and not (BENCHMARKS.is_file() and REGION.search(BENCHMARKS.read_text())):
        raise RunError(f"--write needs {BENCHMARKS} with the lines <!-- bench:start --> and <!-- bench:end -->")
    for needed in (options.server, options.server.with_name(WORKER), options.model_server):
        if not needed.is_file():
            raise RunError(f"{needed} does not exist; scripts/bench.sh builds it")
    plan = QUICK if options.quick else FULL
    end_cleanly_on_signals(plan.limit_seconds)

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, Processes(Path(scratch)) as processes:
        rows = _measure(plan, options, processes)
        signal.alarm(0)
    say(f"done in {time.monotonic() - started:.0f} s")

    text = _render(rows, plan, options)
    print(text)
    for row in rows:
        if not row.meets_floor:
            say(f"BELOW THE FLOOR: {row.work}: {row.ratio if row.ratio != NONE else row.ours}, floor {row.floor}")
    if options.write:
        document = BENCHMARKS.read_text()
        BENCHMARKS.write_text(REGION.sub(lambda found: found[1] + text + "\n" + found[2], document))
        say(f"wrote {BENCHMARKS}")
    return 0


def _measure(plan: Plan, options: argparse.Namespace, processes: Processes) -> list[Row]:
    scratch = processes.scratch
    small = load.small_json(scratch)
    large = load.large_json(scratch, 10 * MB)
    csv = load.csv(scratch, 10 * MB)

    say("starting nginx, sagemaker-tfs and sagemaker-tfs with handlers")
    nginx = Nginx(processes, options.model_server)
    server = Server(processes, options.server, options.model_server).wait()
    pair = Server(processes, options.server, options.model_server, handler="pair").wait()
    time.sleep(1)
    at_rest = {"nginx": nginx.memory()[0], "ours": server.memory()[0], "worker": memory(pair.workers())[0]}
    for target in (nginx, server, pair):
        _check(target, small, large)
        load.wrk(target.port, small, 16, 1)

    kinds = {"16": (small, 16), "64": (small, 64), "large": (large, 4)}
    series = {kind: Series() for kind in kinds}
    pairs = {kind: Side() for kind in ("16", "64")}
    for number in range(plan.rounds):
        for kind, (body, connections) in kinds.items():
            turns = [(series[kind].nginx, nginx), (series[kind].ours, server)]
            if kind in pairs:
                turns.append((pairs[kind], pair))
            # Who begins changes, so that being first is no advantage.
            for side, target in turns if number % 2 == 0 else reversed(turns):
                side.run(target, body, connections, plan.seconds)
            speeds = ", ".join(f"{side.results[-1].per_second:,.0f}/s" for side, _ in turns)
            say(f"round {number + 1}/{plan.rounds}, {body.path.name}, {connections} connections: {speeds}")
    pair.stop()
    say("10 MB CSV through the server")
    through = Side()
    through.run(server, csv, 4, plan.seconds)
    server.stop()

    handlers = _handlers(plan, options, processes)
    csv_memory = _memory_for_csv(options, processes)
    passed = _pass_100_mb(options, processes)
    starts = {handler: _starts(plan, options, processes, handler) for handler in (None, "pair")}
    readiness = _readiness(plan, options, processes)
    speeds = _convert_speeds(options)
    return [
        *_small_rows(series),
        *_large_rows(series["large"], large, through, csv, speeds),
        *_memory_rows(series, through, at_rest, csv_memory),
        _readiness_row(readiness),
        *_pair_rows(series, pairs),
        *_handler_rows(handlers),
        *_handler_memory_rows(at_rest["worker"], *passed),
        _start_row(starts),
    ]


def _check(server: Server | Nginx, *bodies: load.Body) -> None:
    for body in bodies:
        answer = load.post(server.port, body)
        if answer != load.ANSWER:
            raise RunError(f"port {server.port} answered {answer!r} to {body.path.name}, not {load.ANSWER!r}")


# Handlers measured with one worker and with two: the script, the row's name, connections.
SCALED = {
    "pair": ("trivial pair of handlers", 64),
    "single": ("single handler that asks the model itself", 64),
    "busy": ("pair of handlers that takes 5 ms of CPU", 16),
}
SLOW = "slow"
SLOW_CONNECTIONS = 64


def _handlers(plan: Plan, options: argparse.Namespace, processes: Processes) -> dict[str, list[Side]]:
    """For each kind of handlers the runs with one worker and with two, which take turns."""
    small = load.small_json(processes.scratch)
    measured = {}
    for handler, (_, connections) in SCALED.items():
        measured[handler] = _scaled(plan, options, processes, handler, (1, 2), small, connections)
    body = load.slow_json(processes.scratch)
    measured[SLOW] = _scaled(plan, options, processes, "pair", (1,), body, SLOW_CONNECTIONS)
    return measured


def _scaled(
    plan: Plan,
    options: argparse.Namespace,
    processes: Processes,
    handler: str,
    workers: tuple[int, ...],
    body: load.Body,
    connections: int,
) -> list[Side]:
    servers = []
    for count in workers:
        settings = {"SAGEMAKER_GUNICORN_WORKERS": str(count)}
        servers.append(Server(processes, options.server, options.model_server, settings, handler).wait())
        _check(servers[-1], body)
        # All workers are ready and all connections made before anything counts.
        load.wrk(servers[-1].port, body, connections, 1)
    sides = [Side() for _ in servers]
    for number in range(plan.handler_rounds):
        turns = list(zip(sides, servers))
        for side, server in turns if number % 2 == 0 else reversed(turns):
            side.run(server, body, connections, plan.handler_seconds)
        speeds = ", ".join(f"{side.results[-1].per_second:,.0f}/s" for side in sides)
        where = f"{handler}.py, {body.path.name}, {connections} connections"
        say(f"round {number + 1}/{plan.handler_rounds}, {where}, workers {workers}: {speeds}")
    for server in servers:
        server.stop()
    return sides


def _pass_100_mb(options: argparse.Namespace, processes: Processes) -> tuple[float, float, float, float]:
    """One body of 100 MB to the model and back, through a pair of handlers: most memory of server and of worker above
    rest, in bodies, and seconds; and the seconds without handlers."""
    say("a 100 MB body through a pair of handlers, both ways")
    body = load.large_json(processes.scratch, 100 * MB)
    echo = {"FAKE_TFS_ANSWER": "echo"}
    seconds = []
    for handler in (None, "pair"):
        server = Server(processes, options.server, options.model_server, echo, handler).wait()
        time.sleep(1)
        whose = [[server.process.pid], server.workers()]
        at_rest = [memory(pids)[0] for pids in whose]
        server.reset_peak()
        begin = time.monotonic()
        answer = load.post(server.port, body)
        seconds.append(time.monotonic() - begin)
        above = [(memory(pids)[1] - rest) / body.size for pids, rest in zip(whose, at_rest)]
        server.stop()
        if answer != body.path.read_bytes():
            raise RunError(f"{len(answer)} bytes came back of {body.size}, or others")
    return *above, seconds[1], seconds[0]


def _starts(plan: Plan, options: argparse.Namespace, processes: Processes, handler: str | None) -> list[float]:
    times = []
    for number in range(plan.starts):
        server = Server(processes, options.server, options.model_server, handler=handler)
        times.append(load.start_ms(server))
        server.stop()
        say(f"start {number + 1}/{plan.starts}, {handler or 'no'} handlers: {times[-1]:.1f} ms")
    return times


def _memory_for_csv(options: argparse.Namespace, processes: Processes) -> tuple[int, float]:
    """For one body of 100 MB: the peak, and what of it is above rest and the body itself, in bodies."""
    say("memory for a 100 MB CSV body")
    body = load.csv(processes.scratch, 100 * MB)
    server = Server(processes, options.server, options.model_server).wait()
    time.sleep(1)
    at_rest, _ = server.memory()
    server.reset_peak()
    load.post(server.port, body)
    _, peak = server.memory()
    server.stop()
    return peak, (peak - at_rest - body.size) / body.size


def _readiness(plan: Plan, options: argparse.Namespace, processes: Processes) -> list[float]:
    times = []
    for number in range(plan.starts):
        delay = {"FAKE_TFS_START_DELAY_MS": str(load.START_DELAY_MS)}
        server = Server(processes, options.server, options.model_server, delay)
        times.append(load.readiness_ms(server))
        server.stop()
        say(f"readiness {number + 1}/{plan.starts}: {times[-1]:.1f} ms")
    return times


def _convert_speeds(options: argparse.Namespace) -> dict[str, float]:
    """The lines `name: number` of the converters' own benchmark."""
    if not options.convert_speed.is_file():
        say(f"{options.convert_speed} does not exist: the conversion alone is NOT MEASURED")
        return {}
    say("conversion alone")
    run = subprocess.run([options.convert_speed], capture_output=True, text=True, timeout=120)
    if run.returncode != 0:
        raise RunError(f"{options.convert_speed} failed with {run.returncode}:\n{run.stderr}")
    found = re.findall(r"^(\w+_mb_per_s): *([\d.]+)", run.stdout, re.MULTILINE)
    if not found:
        raise RunError(f"{options.convert_speed} printed no line like csv_mb_per_s: 1\n{run.stdout}")
    return {name: float(value) for name, value in found}


def _small_rows(series: dict[str, Series]) -> list[Row]:
    rows = []
    for count in ("16", "64"):
        work = f"small JSON, {count} connections"
        rows.append(series[count].compare(work, lambda r: r.per_second, "requests/s", at_least=0.35, aim=0.75))
    for count in ("16", "64"):
        rows.append(series[count].compare(f"same, p50, {count} connections", lambda r: r.p50_ms, "ms"))
        work = f"same, p99, {count} connections"
        rows.append(series[count].compare(work, lambda r: r.p99_ms, "ms", at_most=3, aim=1.5))
    for count in ("16", "64"):
        theirs, ours = series[count].nginx.cpu_per_1000(), series[count].ours.cpu_per_1000()
        work = f"same, CPU seconds per 1,000 requests, {count} connections"
        rows.append(Row(work, f"{theirs:.4f} s", f"{ours:.4f} s", f"{ours / theirs:.2f}x"))
    return rows


def _large_rows(
    series: Series, large: load.Body, through: Side, csv: load.Body, speeds: dict[str, float]
) -> list[Row]:
    def mb_per_s(result: load.Result) -> float:
        return result.per_second * large.size / MB

    rows = [series.compare("10 MB JSON, 4 connections", mb_per_s, "MB/s", at_least=0.5, aim=1)]

    work = "10 MB CSV (100 numeric columns) to JSON, conversion alone"
    speed = speeds.get("csv_mb_per_s")
    ours = NONE if speed is None else _figure(speed, "MB/s")
    met = speed is not None and speed >= 200
    rows.append(Row(work, ours=ours, floor="200 MB/s", aim="1,000 MB/s", meets_floor=met))
    for name, speed in speeds.items():
        if name != "csv_mb_per_s":
            work = f"{name.removesuffix('_mb_per_s').replace('_', ' ')}, conversion alone"
            rows.append(Row(work, ours=_figure(speed, "MB/s")))
    per_second = through.results[0].per_second
    ours = f"{_figure(per_second * csv.size / MB, 'MB/s')}, {per_second:.1f} requests/s"
    return [*rows, Row("10 MB CSV through the server, 4 connections", ours=ours)]


def _memory_rows(
    series: dict[str, Series], through: Side, at_rest: dict[str, int], csv_memory: tuple[int, float]
) -> list[Row]:
    ours = at_rest["ours"]
    row = Row("memory at rest (server alone; nginx: all its processes)", _mb(at_rest["nginx"]), _mb(ours))
    row.floor, row.aim, row.meets_floor = "20 MB", "8 MB", ours <= 20 * MB
    rows = [row]
    loads = {
        "small JSON, 16 connections": series["16"],
        "small JSON, 64 connections": series["64"],
        "10 MB JSON, 4 connections": series["large"],
    }
    for work, one in loads.items():
        rows.append(Row(f"peak memory, {work}", _mb(one.nginx.peak), _mb(one.ours.peak)))
    rows.append(Row("peak memory, 10 MB CSV, 4 connections", ours=_mb(through.peak)))
    peak, above = csv_memory
    row = Row("memory for a 100 MB CSV body, above rest and body", ours=f"{above:.2f}x body (peak {_mb(peak)})")
    row.floor, row.aim, row.meets_floor = "2x body", "constant", above <= 2
    return [*rows, row]


def _pair_rows(series: dict[str, Series], pairs: dict[str, Side]) -> list[Row]:
    rows = []
    both = {kind: Series(series[kind].nginx, pairs[kind]) for kind in pairs}
    for kind, one in both.items():
        work = f"trivial pair of handlers, {kind} connections"
        rows.append(one.compare(work, lambda r: r.per_second, "requests/s", at_least=0.15, aim=0.3))
    for kind, one in both.items():
        rows.append(one.compare(f"same, p50, {kind} connections", lambda r: r.p50_ms, "ms"))
        rows.append(one.compare(f"same, p99, {kind} connections", lambda r: r.p99_ms, "ms"))
    for kind, one in both.items():
        theirs, ours = one.nginx.cpu_per_1000(), one.ours.cpu_per_1000()
        work = f"same, CPU seconds of server and worker per 1,000 requests, {kind} connections"
        rows.append(Row(work, f"{theirs:.4f} s", f"{ours:.4f} s", f"{ours / theirs:.2f}x"))
    return rows


def _handler_rows(handlers: dict[str, list[Side]]) -> list[Row]:
    rows = []
    for handler, (work, connections) in SCALED.items():
        one, two = (side.per_second() for side in handlers[handler])
        work = f"{work}, {connections} connections"
        rows.append(Row(f"{work}, 1 worker", ours=_figure(statistics.median(one), "requests/s")))
        text = f"{_figure(statistics.median(two), 'requests/s')}, {_ratio(one, two)[1]} of 1 worker"
        rows.append(Row(f"{work}, 2 workers", ours=text))
    per_second = statistics.median(handlers[SLOW][0].per_second())
    # Each connection's request is with the model nearly all the time: one thread for all handlers must be enough.
    most = SLOW_CONNECTIONS * 1000 / load.SLOW_MS
    work = f"trivial pair of handlers, {SLOW_CONNECTIONS} connections, a model that takes {load.SLOW_MS} ms"
    row = Row(work, ours=_figure(per_second, "requests/s"))
    row.floor, row.aim = f"{0.8 * most:.0f} requests/s", f"{most:.0f} requests/s"
    row.meets_floor = per_second >= 0.8 * most
    return [*rows, row]


def _handler_memory_rows(at_rest: int, server: float, worker: float, seconds: float, without: float) -> list[Row]:
    both_ways = "100 MB body both ways through a pair of handlers"
    return [
        Row("memory of a worker at rest, trivial pair of handlers", ours=_mb(at_rest)),
        Row(f"peak memory above rest, {both_ways}", ours=f"server {server:.2f}x body, worker {worker:.2f}x body"),
        Row(f"time, {both_ways}", ours=f"{seconds:.2f} s, without handlers {without:.2f} s"),
    ]


def _start_row(starts: dict[str | None, list[float]]) -> Row:
    with_pair, without = starts["pair"], statistics.median(starts[None])
    ours = f"{statistics.median(with_pair):.0f} ms, at most {max(with_pair):.0f} ms; without handlers {without:.0f} ms"
    return Row("from the start to /ping 200, trivial pair of handlers", ours=ours)


def _readiness_row(times: list[float]) -> Row:
    median = statistics.median(times)
    ours = f"{median:.1f} ms, at most {max(times):.1f} ms"
    work = "from the model server answering AVAILABLE to /ping 200"
    return Row(work, ours=ours, floor="100 ms", aim="20 ms", meets_floor=median <= 100)


def _ratio(base: list[float], other: list[float]) -> tuple[float, str]:
    """The median of the rounds' ratios, and that in words with the smallest and the largest."""
    ratios = sorted(b / a for a, b in zip(base, other))
    median = statistics.median(ratios)
    return median, f"{median:.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _bounded(row: Row, ratio: float, at_least: float = 0, at_most: float = 0, aim: float = 0) -> Row:
    if at_least:
        row.floor, row.aim, row.meets_floor = f"{at_least:g}x", f"{aim:g}x", ratio >= at_least
    elif at_most:
        row.floor, row.aim, row.meets_floor = f"at most {at_most:g}x", f"at most {aim:g}x", ratio <= at_most
    return row


def _figure(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.2f} {unit}"


def _mb(size: int) -> str:
    return f"{size / MB:.1f} MB"


def _render(rows: list[Row], plan: Plan, options: argparse.Namespace) -> str:
    lines = ["| work | nginx | sagemaker-tfs | ratio | floor | aim |", "|---|---|---|---|---|---|"]
    lines += [f"| {r.work} | {r.nginx} | {r.ours} | {r.ratio} | {r.floor} | {r.aim} |" for r in rows]
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.rpartition("/")[2].strip()
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cpu = f" ({model[1]})" if model else ""
    command = "./scripts/bench.sh" + (" --quick" if options.quick else "")
    lines += [
        "",
        f"Machine: {os.cpu_count()} cores{cpu}, Linux {platform.release()}, nginx {nginx}, Python "
        f"{platform.python_version()}. Command: `{command}`: {plan.rounds} rounds of {plan.seconds} s a run (rows with "
        f"1 and 2 workers: {plan.handler_rounds} of {plan.handler_seconds} s), medians, and of the ratios also the "
        "smallest and largest.",
    ]
    return "\n".join(lines)


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def end_cleanly_on_signals(limit_seconds: int) -> None:
    """Turns signals into exceptions, so that leaving the contexts ends what was started."""

    def stop(number, _frame):
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            signal.signal(name, signal.SIG_IGN)
        reason = f"longer than {limit_seconds} s" if number == signal.SIGALRM else signal.Signals(number).name
        raise RunError(f"stopped: {reason}")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, stop)
    signal.alarm(limit_seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="about 2.5 minutes instead of 8")
    parser.add_argument("--write", action="store_true", help=f"write the table into {BENCHMARKS.relative_to(ROOT)}")
    add_executables(parser, "server", "model-server", "convert-speed")
    return parser.parse_args()


def add_executables(parser: argparse.ArgumentParser, *names: str) -> None:
    paths = {
        "server": TARGET / "sagemaker-tfs",
        "model-server": TARGET / "examples" / "fake_model_server",
        "convert-speed": TARGET / "examples" / "convert_speed",
    }
    for name in names:
        parser.add_argument(f"--{name}", type=Path, default=paths[name], metavar="PATH", help="another executable")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RunError as problem:
        say(f"FAILED: {problem}")
        sys.exit(1)
