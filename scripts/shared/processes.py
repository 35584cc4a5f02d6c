"""Starts programs, looks at them through /proc, and ends them: by process id, whatever happens.

What `bench.sh` and `chaos.sh` share; what is started, and what for, is theirs.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

# The second executable, which sagemaker-tfs looks for beside itself.
WORKER = "sagemaker-tfs-python"
START_SECONDS = 20
# The server gives its running requests some time before it stops.
STOP_SECONDS = 30


class RunError(Exception):
    """The run cannot go on; the text says why."""


class Processes:
    """Everything started by this run. Use as a context: leaving it ends all."""

    def __init__(self, scratch: Path):
        self.scratch = scratch
        self.running: list[subprocess.Popen] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)  # nothing may interrupt the ending
        for process in reversed(list(self.running)):
            self.stop(process)

    def start(self, argv: list, env: dict[str, str] | None = None, own_session: bool = False) -> subprocess.Popen:
        """With `own_session` Ctrl-C is for us alone, and all that descends from the process can be told by it."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SAGEMAKER_", "FAKE_TFS_", "TFS_"))}
        name = Path(argv[0]).name
        log = self.scratch / f"{name}-{len(list(self.scratch.glob(f'{name}-*.log')))}.log"
        begin = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(arg) for arg in argv],
                env={**clean, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=own_session,
            )
        self.running.append(process)
        process.log, process.begin = log, begin
        return process

    def stop(self, process: subprocess.Popen) -> None:
        """SIGTERM, then SIGKILL; children that outlive their parent are killed too."""
        children = [(pid, stat(pid)) for pid in descendants(process.pid)]
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid, before in children:
            now = stat(pid)
            if before and now and now[START_TIME] == before[START_TIME]:
                os.kill(pid, signal.SIGKILL)
        self.running.remove(process)


# Below the range that the kernel gives to outgoing connections; another start for every run.
_ports = iter(range(20000 + os.getpid() % 500 * 20, 32768))


def free_ports(count: int) -> int:
    """The first of so many free ports in a row; never the same twice."""
    while True:
        ports = [next(_ports) for _ in range(count)]
        if all(map(_is_free, ports)):
            return ports[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def get(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes] | None:
    """One GET over a kept connection; None where nobody answers."""
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return None


def wait_for(process: subprocess.Popen, port: int, path: str, status: int = 200) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    deadline = time.monotonic() + START_SECONDS
    while True:
        answer = get(connection, path)
        if answer and answer[0] == status:
            return connection.close()
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            what = f"ended with {process.returncode}" if ended else f"answers {answer} to {path}"
            tail = "\n".join(process.log.read_text(errors="replace").splitlines()[-20:])
            raise RunError(f"{process.args[0]} on port {port} {what} instead of {status}; its log ends:\n{tail}")
        time.sleep(0.02)


# Fields of /proc/PID/stat behind the command's name, see proc(5).
STATE, PARENT, SESSION, USER_TICKS, SYSTEM_TICKS, START_TIME = 0, 1, 3, 11, 12, 19


def stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    stats = _all_stats()
    found, parents = [], {pid}
    while parents:
        parents = {child for child, fields in stats.items() if int(fields[PARENT]) in parents}
        found.extend(parents)
    return found


def in_session(leader: int) -> list[int]:
    """What still runs in the session of a process that was started with one of its own, without that process."""
    members = _all_stats().items()
    return [pid for pid, fields in members if int(fields[SESSION]) == leader != pid and fields[STATE] != "Z"]


def _all_stats() -> dict[int, list[str]]:
    stats = {int(p.name): stat(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()}
    return {pid: fields for pid, fields in stats.items() if fields}


def cpu_seconds(pids: list[int]) -> float:
    stats = [fields for fields in map(stat, pids) if fields]
    ticks = sum(int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS]) for fields in stats)
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pids: list[int]) -> tuple[int, int]:
    """Resident now and at most, in bytes; pages that several processes share count for each."""
    now = peak = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            now += int(value.split()[0]) * 1024 if name == "VmRSS" else 0
            peak += int(value.split()[0]) * 1024 if name == "VmHWM" else 0
    return now, peak


def reset_peak(pids: list[int]) -> None:
    """From here on, the most resident memory is counted anew (see proc(5), clear_refs)."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
