"""Breaks sagemaker-tfs on purpose under load and checks every answer; run it through scripts/chaos.sh, which builds.

Two servers, one with Python handlers and one without, each with two fake model servers that echo. Clients of all
kinds ask them all the time, hostile ones attack them, and processes are killed and stopped at random. Exit code 0 when
nothing was lost, wrong or let through, no process is left, and memory, descriptors and threads did not grow.
docs/RELIABILITY.md says what counts.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))

import hostile
from clients import Client, Pinger, stop_all
from faults import Injector
from report import Result, table
from target import Target

from shared.processes import WORKER, Processes, RunError

RELIABILITY = ROOT / "docs" / "RELIABILITY.md"
REGION = re.compile(r"(<!-- chaos:start -->\n).*?(<!-- chaos:end -->)", re.DOTALL)
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
WORKERS = 2
# Of each server; all of their requests fit into its slots, so that none may be turned away.
CLIENTS = 16
# Load without faults, after which memory and descriptors are looked at for the first time.
WARM_UP_SECONDS = 15
PROGRESS_SECONDS = 10
# Beside the time of the faults. A run that takes longer is stuck.
LIMIT_SECONDS = 420


def main() -> int:
    options = _options()
    if options.write and not (RELIABILITY.is_file() and REGION.search(RELIABILITY.read_text())):
        raise RunError(f"--write needs {RELIABILITY} with the lines <!-- chaos:start --> and <!-- chaos:end -->")
    for needed in (options.server, options.server.with_name(WORKER), options.model_server):
        if not needed.is_file():
            raise RunError(f"{needed} does not exist; scripts/chaos.sh builds it")
    interrupted = _end_in_good_order_on_signals(int(options.minutes * 60) + LIMIT_SECONDS)
    _say(f"seed {options.seed}")
    scratch = Path(tempfile.mkdtemp(prefix="chaos-"))
    is_well = False
    try:
        with Processes(scratch) as processes:
            is_well = Run(options, processes, interrupted).run()
    finally:
        if is_well:
            shutil.rmtree(scratch)
        else:
            _say(f"the logs are in {scratch}")
    if interrupted.is_set():
        return 130
    return 0 if is_well else 1


class Run:
    def __init__(self, options: argparse.Namespace, processes: Processes, interrupted: threading.Event):
        self.options = options
        self.interrupted = interrupted
        self.targets = [
            Target(processes, options.server, options.model_server, workers) for workers in (WORKERS, 0)
        ]
        self.results: list[Result] = []
        self.faulty_seconds = 0.0

    def run(self) -> bool:
        """Whether all was well."""
        for target in self.targets:
            target.wait()
        self.warm_up()
        self.results = at_once(self.targets, self.result)
        _say("breaking things")
        problems = []
        try:
            problems += [f"{name} never ended" for name in self.break_things()]
            self.look_after()
        except RunError as problem:
            problems.append(str(problem))
        text = table(self.results, self.faulty_seconds, self.command(), self.options.seed)
        print(text, flush=True)
        for result in self.results:
            for failure in result.target.tally.failures:
                _say(f"{result.target.name}: {failure}")
        problems += [f"the injector failed: {r.injector.failed!r}" for r in self.results if r.injector.failed]
        problems += [problem for result in self.results for problem in result.problems()]
        for problem in problems:
            _say(f"NOT WELL: {problem}")
        if problems:
            for target in self.targets:
                _say(f"{target.name}: the server's log is {target.server.log}")
        if self.interrupted.is_set():
            _say("interrupted")
        elif self.options.write:
            document = RELIABILITY.read_text()
            RELIABILITY.write_text(REGION.sub(lambda found: found[1] + text + "\n" + found[2], document))
            _say(f"wrote {RELIABILITY}")
        return not problems

    def warm_up(self) -> None:
        _say(f"warming up for {WARM_UP_SECONDS} s")
        stop = threading.Event()
        threads = self.start_load("warm-up", stop)
        self.interrupted.wait(WARM_UP_SECONDS)
        if stuck := stop_all(threads, stop):
            raise RunError(f"{stuck} never ended in the warm-up; the logs: {[t.server.log for t in self.targets]}")
        for target in self.targets:
            target.tally.service.last = None  # the quiet time that follows is none without service

    def start_load(self, phase: str, stop: threading.Event) -> list[threading.Thread]:
        threads: list[threading.Thread] = []
        for number in range(CLIENTS * len(self.targets)):
            target = self.targets[number % len(self.targets)]
            threads.append(Client(number, f"{self.options.seed}/{phase}", target, stop))
        threads += [Pinger(target, stop) for target in self.targets]
        for thread in threads:
            thread.start()
        for target in self.targets:
            threads += hostile.start(target, f"{self.options.seed}/{phase}", stop)
        return threads

    def break_things(self) -> list[str]:
        """The names of clients that never ended."""
        stop = threading.Event()
        injectors = [result.injector for result in self.results]
        clients = self.start_load("run", stop)
        begin = time.monotonic()
        end = begin + self.options.minutes * 60
        try:
            for injector in injectors:
                injector.start()
            told = begin
            while (now := time.monotonic()) < end and not self.interrupted.is_set():
                if now - told >= PROGRESS_SECONDS:
                    told = now
                    self.progress(now - begin)
                self.interrupted.wait(min(1.0, end - now))
        finally:
            for injector in injectors:
                injector.stop.set()
            for injector in injectors:
                injector.join()
            self.faulty_seconds = time.monotonic() - begin
            stuck = stop_all(clients, stop)
        return stuck

    def progress(self, seconds: float) -> None:
        parts = []
        for result in self.results:
            tally, now = result.target.tally, result.target.footprint()
            parts.append(
                f"{result.target.name}: {tally.requests:,} requests, {sum(tally.faults.values())} faults, "
                f"{sum(tally.attacks.values())} attacks, {tally.wrong} wrong, {tally.lost} lost, "
                f"{tally.let_through} let through, {now.memory // 10**6} MB, {now.descriptors} descriptors, "
                f"{now.threads} threads"
            )
        _say(f"{seconds:.0f} s; " + "; ".join(parts))

    def look_after(self) -> None:
        """What is left when nobody asks any more and nothing is broken any more."""
        _say("the load has ended; waiting until all has been quiet for a while")

        def look_after(result: Result) -> None:
            target = result.target
            result.is_complete = target.wait_complete()
            result.after = target.rest()
            result.twice_run = target.twice_run()
            # Everything that was started is in the log by now.
            result.starts = target.starts()
            result.exit_code, result.left = target.end()

        at_once(self.results, look_after)

    def result(self, target: Target) -> Result:
        before = target.rest(self.interrupted.is_set)
        return Result(target, Injector(target, str(self.options.seed), threading.Event()), before)

    def command(self) -> str:
        return f"./scripts/chaos.sh --seed {self.options.seed} {self.options.minutes:g}"


def at_once(items: list, do: Callable) -> list:
    """Does it with all of them at the same time: most of it is waiting."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(do, items))


def _say(text: str) -> None:
    print(f"chaos: {text}", file=sys.stderr, flush=True)


def _end_in_good_order_on_signals(limit_seconds: int) -> threading.Event:
    """The first signal ends the load and prints what there is; the time limit ends at once what is stuck."""
    interrupted = threading.Event()

    def too_long(_number, _frame):
        raise RunError(f"stopped: longer than {limit_seconds} s")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: interrupted.set())
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(limit_seconds)
    return interrupted


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes <= 24 * 60:
        raise argparse.ArgumentTypeError("a number of minutes up to a day")
    return minutes


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos.sh", description=__doc__.split("\n\n")[0])
    parser.add_argument("minutes", type=_minutes, nargs="?", default=5.0, help="time of faults; default 5")
    parser.add_argument("--seed", type=int, help="repeats the choices of an earlier run; printed at its start")
    parser.add_argument("--write", action="store_true", help=f"write the table into {RELIABILITY.relative_to(ROOT)}")
    for name, default in {
        "server": BUILT / "sagemaker-tfs",
        "model-server": BUILT / "examples" / "fake_model_server",
    }.items():
        parser.add_argument(f"--{name}", type=Path, default=default, metavar="PATH", help="another executable")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = secrets.randbelow(10**6)
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RunError as problem:
        _say(f"FAILED: {problem}")
        sys.exit(1)
