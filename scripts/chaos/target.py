"""A server under test with its children: how it is started, what processes there are, what it takes up, how it ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from asked import MODEL
from tally import Tally, clock
from wire import HOST, Connection, NoAnswer

from shared.processes import (
    PARENT,
    START_TIME,
    STOP_SECONDS,
    WORKER,
    Processes,
    RunError,
    descendants,
    free_ports,
    in_session,
    memory,
    program,
    stat,
    wait_for,
)

HERE = Path(__file__).resolve().parent
INSTANCES = 2
# What a small model takes to load.
LOADING_MS = 400
# A process that was left alone for so long serves: the longest pause before a restart is 10 s.
LEFT_ALONE_SECONDS = 20
# For everything to be ready again once nothing is broken any more.
RECOVERY_SECONDS = 60
# Without load, before memory, descriptors and threads are looked at. The server keeps connections to TFS for the next
# requests, and closes those that were idle for 15 s when it next takes one: hence a request now and then.
REST_SECONDS = 20
# For all bodies in flight. All clients' own need a part of it, hostile ones and what bodies grow to the rest.
BODY_MEMORY = 256 << 20
# The model server dies of JSON nested deeper than this, as TFS does of some 18,000 levels.
FATAL_LEVELS = 10_000
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    pid: int
    # In ticks since the machine's start: tells it from a later one with the same id.
    started: int

    def age(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / TICKS

    def signal(self, number: signal.Signals) -> bool:
        """Never to another process that has got its id meanwhile; whether it was still there."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            now = stat(self.pid)
            if now is None or int(now[START_TIME]) != self.started:
                return False
            signal.pidfd_send_signal(handle, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)


@dataclass(frozen=True)
class Footprint:
    memory: int
    descriptors: int
    threads: int
    # The most memory since the start.
    peak: int = 0


class Target:
    """One server with two TFS instances, with Python workers or without."""

    def __init__(self, processes: Processes, server: Path, model_server: Path, workers: int):
        self.name = "with handlers" if workers else "without handlers"
        self.workers_wanted = workers
        self.model_server = model_server.name
        self.tally = Tally()
        self.processes = processes
        # A file for each worker with the requests whose `output_handler` began.
        self.notes = processes.scratch / "output-handler-calls"
        self.notes.mkdir(exist_ok=True)
        # Every signal of ours, to be held beside the server's log.
        self.signals = (processes.scratch / f"signals-{self.name.replace(' ', '-')}.log").open("w", buffering=1)
        self.lock = threading.Lock()
        # When each process was last tampered with.
        self.touched: dict[Process, float] = {}
        folder = processes.scratch / self.name.replace(" ", "-")
        version = folder / "models" / MODEL / "1"
        version.mkdir(parents=True)
        (version / "saved_model.pb").touch()
        if workers:
            shutil.copytree(HERE / "handlers", folder / "models" / "code", ignore=shutil.ignore_patterns("__pycache__"))
        record = folder / "record"
        record.mkdir()
        self.port = free_ports(1)
        low = free_ports(2 * INSTANCES)
        env = {
            "SAGEMAKER_SAFE_PORT_RANGE": f"{low}-{low + 2 * INSTANCES - 1}",
            "SAGEMAKER_TFS_INSTANCE_COUNT": str(INSTANCES),
            "SAGEMAKER_GUNICORN_WORKERS": str(workers or 1),
            # Tells in the log of answers that could not be sent.
            "SAGEMAKER_TFS_NGINX_LOGLEVEL": "warn",
            "SAGEMAKER_TFS_MAX_BODY_MEMORY_MB": str(BODY_MEMORY >> 20),
            "FAKE_TFS_POST_BODIES_ONLY": "1",
            "FAKE_TFS_MAX_DEPTH": str(FATAL_LEVELS),
            "FAKE_TFS_ANSWER": "echo",
            "FAKE_TFS_START_DELAY_MS": str(LOADING_MS),
            "FAKE_TFS_RECORD": str(record),
            "CHAOS_NOTES": str(self.notes),
        }
        argv = [server, "serve", "--listen", HOST, "--port", self.port]
        argv += ["--model-dir", folder / "models", "--model-server", model_server]
        self.server = processes.start(argv, env, own_session=True)
        self.itself = self._process(self.server.pid)

    @property
    def has_handlers(self) -> bool:
        return self.workers_wanted > 0

    def wait(self) -> None:
        wait_for(self.server, self.port, "/ping")
        self.wait_complete()

    def wait_complete(self) -> bool:
        """Until all processes are there that there should be, and /ping answers 200."""
        limit = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < limit:
            complete = len(self.instances()) == INSTANCES and len(self.workers()) == self.workers_wanted
            if complete and self.ping() == 200:
                return True
            time.sleep(0.05)
        return False

    def ping(self) -> int | None:
        try:
            connection = Connection(self.port)
            try:
                connection.send(b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return connection.receive().status
            finally:
                connection.close()
        except NoAnswer:
            return None

    def instances(self) -> list[Process]:
        return self._children(self.model_server)

    def workers(self) -> list[Process]:
        return self._children(WORKER)

    def helpers(self) -> list[Process]:
        """The children of workers."""
        workers = {worker.pid for worker in self.workers()}
        found = []
        for pid in descendants(self.server.pid):
            fields = stat(pid)
            if fields and int(fields[PARENT]) in workers:
                found.append(Process(pid, int(fields[START_TIME])))
        return found

    def touch(self, process: Process, until: float | None = None) -> None:
        with self.lock:
            self.touched[process] = until or time.monotonic()

    def left_alone(self, processes: list[Process], seconds: float) -> list[Process]:
        """Those that are that old and have not been tampered with for that long."""
        now = time.monotonic()
        with self.lock:
            touched = dict(self.touched)
        return [p for p in processes if p.age() >= seconds and now - touched.get(p, -1e9) >= seconds]

    def signal(self, process: Process, number: signal.Signals) -> bool:
        """Whether the process was still there."""
        was_there = process.signal(number)
        self.signals.write(f"{clock()} {number.name} to {process.pid}{'' if was_there else ', which is gone'}\n")
        return was_there

    def has_worked(self, worker: Process) -> bool:
        """Whether it has answered calls: `output_handler` only begins after `input_handler`."""
        try:
            return (self.notes / str(worker.pid)).stat().st_size > 0
        except OSError:
            return False

    def must_serve(self, said: bytes) -> str:
        """Why /ping must answer 200 and not what it said, if it must."""
        if b"unresponsive" in said:
            return ""  # a process that did not answer in time, as it may where the machine is busy
        alone = self.left_alone(self.instances(), LEFT_ALONE_SECONDS)
        workers = self.left_alone(self.workers(), LEFT_ALONE_SECONDS) if self.has_handlers else [None]
        if alone and workers:
            return f"502 {said!r} though these were left alone for {LEFT_ALONE_SECONDS} s: {alone}, {workers}"
        return ""

    def footprint(self) -> Footprint:
        pid = self.server.pid
        try:
            threads = len(os.listdir(f"/proc/{pid}/task"))
            now, peak = memory([pid])
            return Footprint(now, len(os.listdir(f"/proc/{pid}/fd")), threads, peak)
        except OSError:
            raise RunError(f"the server {self.name} has ended; its log is {self.server.log}") from None

    def rest(self, is_over=lambda: False) -> Footprint:
        """What it takes up when nothing has gone on for a while."""
        limit = time.monotonic() + REST_SECONDS
        while time.monotonic() < limit and not is_over():
            self.small_request()
            time.sleep(1)
        return self.footprint()

    def small_request(self) -> None:
        connection = Connection(self.port)
        try:
            head = f"GET /tfs/v1/models/{MODEL} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            connection.send(head.encode())
            connection.receive()
        finally:
            connection.close()

    def starts(self) -> tuple[int, int]:
        """Processes of TFS and Python workers started so far, by the server's log."""
        log = self.server.log.read_text(errors="replace")
        instances = re.findall(r"instance \d+: started .*, process \d+$", log, re.MULTILINE)
        workers = re.findall(r"Python worker \d+: started, process \d+;", log)
        return len(instances), len(workers)

    def twice_run(self) -> list[str]:
        """Marks of requests whose `output_handler` began more than once."""
        marks = Counter(mark for notes in self.notes.iterdir() for mark in notes.read_text().splitlines())
        return [mark for mark, count in marks.items() if count > 1]

    def end(self) -> tuple[int | None, list[str]]:
        """SIGTERM: the exit code, None if it does not end by itself, and what is left of its children, and is ended."""
        leader = self.server.pid
        self.server.terminate()
        try:
            code = self.server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        left = []
        for pid in in_session(leader):
            left.append(f"{program(pid)} ({pid})")
            self._process(pid).signal(signal.SIGKILL)
        return code, left

    def _children(self, name: str) -> list[Process]:
        """Those whose parent is the server: its children, not theirs."""
        found = []
        for pid in descendants(self.server.pid):
            fields = stat(pid)
            if fields and int(fields[PARENT]) == self.server.pid and program(pid) == name:
                found.append(Process(pid, int(fields[START_TIME])))
        return found

    @staticmethod
    def _process(pid: int) -> Process:
        return Process(pid, int(stat(pid)[START_TIME]))
