"""Measures sagemaker-tfs against nginx on this machine; run it through scripts/bench.sh, which builds first.

nginx and sagemaker-tfs take turns in front of the same kind of backend, the fake model server with a fixed
answer. Every ratio is taken within a round, and the table shows the median of the rounds: on a shared machine
speeds drift from minute to minute, ratios much less. nginx buffers large bodies in files under TMPDIR.
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

import load
from load import MB
from processes import BenchError, Nginx, Processes, Server

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "docs" / "BENCHMARKS.md"
REGION = re.compile(r"(<!-- bench:start -->\n).*?(<!-- bench:end -->)", re.DOTALL)
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
NONE = "–"


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: int
    starts: int
    # A run that takes longer is stuck.
    limit_seconds: int


FULL = Plan(rounds=9, seconds=4, starts=7, limit_seconds=480)
QUICK = Plan(rounds=3, seconds=3, starts=3, limit_seconds=150)


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


@dataclass
class Series:
    """Both servers under one kind of load, one result each a round."""

    nginx: Side = field(default_factory=Side)
    ours: Side = field(default_factory=Side)

    def compare(self, work: str, figure, unit: str, **bounds) -> Row:
        """A row with the medians of a figure and of its ratios within the rounds."""
        theirs, ours = [figure(r) for r in self.nginx.results], [figure(r) for r in self.ours.results]
        ratios = sorted(b / a for a, b in zip(theirs, ours))
        ratio = f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        row = Row(work, _figure(statistics.median(theirs), unit), _figure(statistics.median(ours), unit), ratio)
        return _bounded(row, statistics.median(ratios), **bounds)


def main() -> int:
    options = _options()
    if options.write and not (BENCHMARKS.is_file() and REGION.search(BENCHMARKS.read_text())):
        raise BenchError(f"--write needs {BENCHMARKS} with the lines <!-- bench:start --> and <!-- bench:end -->")
    for needed in (options.server, options.model_server):
        if not needed.is_file():
            raise BenchError(f"{needed} does not exist; scripts/bench.sh builds it")
    plan = QUICK if options.quick else FULL
    _end_cleanly_on_signals(plan.limit_seconds)

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, Processes(Path(scratch)) as processes:
        rows = _measure(plan, options, processes)
        signal.alarm(0)
    _say(f"done in {time.monotonic() - started:.0f} s")

    text = _render(rows, plan, options)
    print(text)
    for row in rows:
        if not row.meets_floor:
            _say(f"BELOW THE FLOOR: {row.work}: {row.ratio if row.ratio != NONE else row.ours}, floor {row.floor}")
    if options.write:
        document = BENCHMARKS.read_text()
        BENCHMARKS.write_text(REGION.sub(lambda found: found[1] + text + "\n" + found[2], document))
        _say(f"wrote {BENCHMARKS}")
    return 0


def _measure(plan: Plan, options: argparse.Namespace, processes: Processes) -> list[Row]:
    scratch = processes.scratch
    small = load.small_json(scratch)
    large = load.large_json(scratch, 10 * MB)
    csv = load.csv(scratch, 10 * MB)

    _say("starting nginx and sagemaker-tfs")
    nginx = Nginx(processes, options.model_server)
    server = Server(processes, options.server, options.model_server).wait()
    time.sleep(1)
    at_rest = {"nginx": nginx.memory()[0], "ours": server.memory()[0]}
    for port in (nginx.port, server.port):
        for body in (small, large):
            answer = load.post(port, body)
            if answer != load.ANSWER:
                raise BenchError(f"port {port} answered {answer!r} to {body.path.name}, not {load.ANSWER!r}")
        load.wrk(port, small, 16, 1)

    kinds = {"16": (small, 16), "64": (small, 64), "large": (large, 4)}
    series = {kind: Series() for kind in kinds}
    for number in range(plan.rounds):
        for kind, (body, connections) in kinds.items():
            turns = [(series[kind].nginx, nginx), (series[kind].ours, server)]
            # Who begins changes, so that being first is no advantage.
            for side, target in turns if number % 2 == 0 else reversed(turns):
                side.run(target, body, connections, plan.seconds)
            _tell(series[kind], f"round {number + 1}/{plan.rounds}, {body.path.name}, {connections} connections")
    _say("10 MB CSV through the server")
    through = Side()
    through.run(server, csv, 4, plan.seconds)
    server.stop()

    csv_memory = _memory_for_csv(options, processes)
    readiness = _readiness(plan, options, processes)
    speeds = _convert_speeds(options)
    return [
        *_small_rows(series),
        *_large_rows(series["large"], large, through, csv, speeds),
        *_memory_rows(series, through, at_rest, csv_memory),
        _readiness_row(readiness),
    ]


def _memory_for_csv(options: argparse.Namespace, processes: Processes) -> tuple[int, float]:
    """For one body of 100 MB: the peak, and what of it is above rest and the body itself, in bodies."""
    _say("memory for a 100 MB CSV body")
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
        _say(f"readiness {number + 1}/{plan.starts}: {times[-1]:.1f} ms")
    return times


def _convert_speeds(options: argparse.Namespace) -> dict[str, float]:
    """The lines `name: number` of the converters' own benchmark."""
    if not options.convert_speed.is_file():
        _say(f"{options.convert_speed} does not exist: the conversion alone is NOT MEASURED")
        return {}
    _say("conversion alone")
    run = subprocess.run([options.convert_speed], capture_output=True, text=True, timeout=120)
    if run.returncode != 0:
        raise BenchError(f"{options.convert_speed} failed with {run.returncode}:\n{run.stderr}")
    found = re.findall(r"^(\w+_mb_per_s): *([\d.]+)", run.stdout, re.MULTILINE)
    if not found:
        raise BenchError(f"{options.convert_speed} printed no line like csv_mb_per_s: 1\n{run.stdout}")
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


def _readiness_row(times: list[float]) -> Row:
    median = statistics.median(times)
    ours = f"{median:.1f} ms, at most {max(times):.1f} ms"
    work = "from the model server answering AVAILABLE to /ping 200"
    return Row(work, ours=ours, floor="100 ms", aim="20 ms", meets_floor=median <= 100)


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


def _tell(series: Series, what: str) -> None:
    theirs, ours = series.nginx.results[-1].per_second, series.ours.results[-1].per_second
    _say(f"{what}: nginx {theirs:,.0f}/s, sagemaker-tfs {ours:,.0f}/s, {ours / theirs:.2f}x")


def _render(rows: list[Row], plan: Plan, options: argparse.Namespace) -> str:
    lines = ["| work | nginx | sagemaker-tfs | ratio | floor | aim |", "|---|---|---|---|---|---|"]
    lines += [f"| {r.work} | {r.nginx} | {r.ours} | {r.ratio} | {r.floor} | {r.aim} |" for r in rows]
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.rpartition("/")[2].strip()
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cpu = f" ({model[1]})" if model else ""
    command = "./scripts/bench.sh" + (" --quick" if options.quick else "")
    lines += [
        "",
        f"Machine: {os.cpu_count()} cores{cpu}, Linux {platform.release()}, nginx {nginx}. Command: `{command}`: "
        f"{plan.rounds} rounds of {plan.seconds} s a run, medians, and of the ratios also the smallest and largest.",
    ]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _end_cleanly_on_signals(limit_seconds: int) -> None:
    """Turns signals into exceptions, so that leaving the contexts ends what was started."""

    def stop(number, _frame):
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            signal.signal(name, signal.SIG_IGN)
        reason = f"longer than {limit_seconds} s" if number == signal.SIGALRM else signal.Signals(number).name
        raise BenchError(f"stopped: {reason}")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, stop)
    signal.alarm(limit_seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="about 1.5 minutes instead of 5")
    parser.add_argument("--write", action="store_true", help=f"write the table into {BENCHMARKS.relative_to(ROOT)}")
    for name, default in {
        "server": TARGET / "sagemaker-tfs",
        "model-server": TARGET / "examples" / "fake_model_server",
        "convert-speed": TARGET / "examples" / "convert_speed",
    }.items():
        parser.add_argument(f"--{name}", type=Path, default=default, metavar="PATH", help="another executable")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as problem:
        _say(f"FAILED: {problem}")
        sys.exit(1)
