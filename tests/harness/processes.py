"""Starts programs, looks at them through /proc, and ends them by process id."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .client import Answer, Failure, request, wait_until
from .constants import HOST

# Importing TensorFlow and loading models takes some seconds, and many times that on a busy machine.
START_SECONDS = 180
# After SIGTERM the server lets requests run for 25 s and gives its children another 3 s.
STOP_SECONDS = 35

# Settings of the caller that would change what is tested.
DROPPED_PREFIXES = ("SAGEMAKER_", "TFS_", "FAKE_TFS_", "AWS_", "PYTHON")
DROPPED_NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

# Fields of /proc/PID/stat behind the program's name, see proc(5).
STATE, PARENT, SESSION, USER_TICKS, SYSTEM_TICKS = 0, 1, 3, 11, 12


def environment() -> dict[str, str]:
    """The caller's variables without settings; `python3` is the Python that runs this."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(DROPPED_PREFIXES) and name.lower() not in DROPPED_NAMES
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return {**kept, "PATH": path, "MODEL_SERVER_PYTHON": sys.executable}


class Process:
    """A running program with a log and a session of its own. Leaving this context ends the whole session."""

    def __init__(self, argv: list, env: dict[str, str] | None = None, *, terminal: int | None = None):
        """With `terminal`, a file descriptor, the program reads and writes there, and the log stays empty."""
        self.command = [str(word) for word in argv]
        # Closing this file removes it.
        self.log_file = tempfile.NamedTemporaryFile(prefix=f"{Path(self.command[0]).name}-", suffix=".log")
        self.begin = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            env={**environment(), **(env or {})},
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=self.log_file if terminal is None else terminal,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches only us, and we then stop the program in good order.
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        try:
            self.stop()
        finally:
            self.log_file.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_until(self, condition: Callable, failure: Callable[[], str], seconds: float = START_SECONDS):
        """Like the function, but fails at once when the program ends, and shows the end of its log."""

        def checked():
            if self.process.poll() is not None:
                raise Failure(f"{self.command[0]} ended with code {self.process.returncode}{self.last_lines()}")
            return condition()

        return wait_until(checked, lambda: f"{failure()}{self.last_lines()}", seconds)

    def wait_answer(self, port: int, path: str, status: int = 200, progress: Callable | None = None) -> Answer:
        """Until a GET has this status. `progress` gets seconds and the latest answer's text, once a second."""
        reported, latest = self.begin, "no answer"

        def answered():
            nonlocal reported, latest
            try:
                answer = request(port, "GET", path)
                if answer.status == status:
                    return answer
                latest = f"status {answer.status}: {answer.text}"
            except (OSError, http.client.HTTPException) as error:
                latest = str(error)
            now = time.monotonic()
            if progress and now - reported >= 1:
                reported = now
                progress(now - self.begin, latest)
            return None

        return self.wait_until(answered, lambda: f"{path} on port {port} does not have status {status}: {latest}")

    def wait_listening(self, port: int):
        """Until the port accepts connections; returns this process."""

        def listening():
            with contextlib.suppress(OSError), socket.create_connection((HOST, port)):
                return True

        self.wait_until(listening, lambda: f"port {port} is closed")
        return self

    def wait(self, seconds: float) -> int:
        """Waits for the program to end by itself and returns its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.command[0]} still runs after {seconds} s{self.last_lines()}") from None

    def stop(self, first: signal.Signals = signal.SIGTERM) -> int:
        """Sends this signal, and SIGKILL to what is left of the session; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(first)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return self.process.returncode

    def children(self) -> list[int]:
        """All running processes of the program's session but the program, also those whose parent has ended."""
        stats = {pid: stat(pid) for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pid != self.pid}
        running = {pid: fields for pid, fields in stats.items() if fields and fields[STATE] != "Z"}
        return [pid for pid, fields in running.items() if int(fields[SESSION]) == self.pid]

    def log(self) -> str:
        return Path(self.log_file.name).read_text(errors="replace")

    def last_lines(self, count: int = 25) -> str:
        lines = self.log().splitlines()[-count:]
        return "\nits last output:\n" + "\n".join(f"    {line}" for line in lines)


def stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None when the process has ended."""
    try:
        # The name comes before them, in parentheses, and may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def program(pid: int) -> str:
    """The name of the executable; empty when the process has ended."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


def cpu_seconds(pids: list[int]) -> float:
    """Processor time that these processes have used so far."""
    stats = [fields for fields in map(stat, pids) if fields]
    ticks = sum(int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS]) for fields in stats)
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pids: list[int]) -> tuple[int, int]:
    """Resident memory now and at most, in bytes. A page that several processes share counts for each."""
    now = peak = 0
    for pid in pids:
        status = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
        now += int(status["VmRSS"]) * 1024
        peak += int(status["VmHWM"]) * 1024
    return now, peak


def proportional_memory(pids: list[int]) -> int:
    """Resident memory in bytes. Of a page that several processes share, each counts its part."""
    rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids)
    return sum(int(rollup.partition("\nPss:")[2].split()[0]) * 1024 for rollup in rollups)


def reset_peak(pids: list[int]) -> None:
    """Makes `memory` measure the peak from here on (see proc(5), clear_refs)."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def interrupt_on_signals() -> None:
    """Makes SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt once; nothing interrupts the clean-up after that."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(_number, _frame):
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
