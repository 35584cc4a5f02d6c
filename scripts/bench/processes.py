"""Starts what is measured, looks at it through /proc, and ends it: by process id, whatever happens."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The second executable, which sagemaker-tfs looks for beside itself.
WORKER = "sagemaker-tfs-python"
MODEL = "half_plus_three"
STATUS_PATH = f"/v1/models/{MODEL}"
START_SECONDS = 20
# The server gives its running requests some time before it stops.
STOP_SECONDS = 30


class BenchError(Exception):
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

    def start(self, argv: list, env: dict[str, str] | None = None) -> subprocess.Popen:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SAGEMAKER_", "FAKE_TFS_", "TFS_"))}
        log = self.scratch / f"{Path(argv[0]).name}-{len(list(self.scratch.glob('*.log')))}.log"
        begin = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(arg) for arg in argv],
                env={**clean, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.running.append(process)
        process.log, process.begin = log, begin
        return process

    def stop(self, process: subprocess.Popen) -> None:
        """SIGTERM, then SIGKILL; children that outlive their parent are killed too."""
        children = [(pid, _stat(pid)) for pid in descendants(process.pid)]
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid, stat in children:
            now = _stat(pid)
            if stat and now and now[START_TIME] == stat[START_TIME]:
                os.kill(pid, signal.SIGKILL)
        self.running.remove(process)


class Server:
    """sagemaker-tfs with a fake model server as its child, and with a script of handlers/ if one is named."""

    def __init__(
        self,
        processes: Processes,
        server: Path,
        model_server: Path,
        env: dict[str, str] | None = None,
        handler: str | None = None,
    ):
        model_dir = processes.scratch / f"model-{handler or 'alone'}"
        version = model_dir / MODEL / "1"
        version.mkdir(parents=True, exist_ok=True)
        (version / "saved_model.pb").touch()
        if handler:
            (model_dir / "code").mkdir(exist_ok=True)
            shutil.copy(HERE / "handlers" / f"{handler}.py", model_dir / "code" / "inference.py")
        self.processes = processes
        self.port = free_ports(1)
        low = free_ports(2)
        self.backend_port = low + 1
        argv = [server, "serve", "--model-dir", model_dir, "--port", self.port, "--model-server", model_server]
        ports = {"SAGEMAKER_SAFE_PORT_RANGE": f"{low}-{low + 1}"}
        self.process = processes.start(argv, {**ports, **(env or {})})

    def stop(self) -> None:
        self.processes.stop(self.process)

    def wait(self) -> Server:
        wait_for(self.process, self.port, "/ping")
        return self

    def workers(self) -> list[int]:
        """The processes that run Python handlers."""
        return [pid for pid in descendants(self.process.pid) if _program(pid).startswith(WORKER)]

    def cpu_seconds(self) -> float:
        """Of the server and its Python workers, without the model server."""
        return cpu_seconds([self.process.pid, *self.workers()])

    def memory(self) -> tuple[int, int]:
        """Of the server alone."""
        return memory([self.process.pid])

    def reset_peak(self) -> None:
        reset_peak([self.process.pid, *self.workers()])


class Nginx:
    """nginx with a fake model server of its own."""

    def __init__(self, processes: Processes, model_server: Path):
        config = processes.scratch / "models.config"
        config.write_text(f'model_config_list {{ config {{ name: "{MODEL}" }} }}\n')
        low = free_ports(2)
        backend = processes.start(
            [model_server, f"--port={low}", f"--rest_api_port={low + 1}", f"--model_config_file={config}"]
        )
        wait_for(backend, low + 1, STATUS_PATH)

        home = processes.scratch / "nginx"
        home.mkdir()
        self.port = free_ports(1)
        words = {
            "DIR": home,
            "PORT": self.port,
            "BACKEND": low + 1,
            # The workers of a root nginx would otherwise be nobody, who may not enter our directory.
            "USER": "user root;" if os.geteuid() == 0 else "",
        }
        text = (HERE / "nginx.conf").read_text()
        for word, value in words.items():
            text = text.replace(f"@{word}@", str(value))
        (home / "nginx.conf").write_text(text)
        argv = ["nginx", "-p", home, "-c", home / "nginx.conf", "-e", home / "nginx.log"]
        self.process = processes.start(argv)
        wait_for(self.process, self.port, "/", status=404)

        self.pids = [self.process.pid, *descendants(self.process.pid)]

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pids)

    def memory(self) -> tuple[int, int]:
        return memory(self.pids)

    def reset_peak(self) -> None:
        reset_peak(self.pids)


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
            raise BenchError(f"{process.args[0]} on port {port} {what} instead of {status}; its log ends:\n{tail}")
        time.sleep(0.02)


# Fields of /proc/PID/stat behind the command's name, see proc(5).
PARENT, USER_TICKS, SYSTEM_TICKS, START_TIME = 1, 11, 12, 19


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    stats = {int(p.name): _stat(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()}
    found, parents = [], {pid}
    while parents:
        parents = {child for child, stat in stats.items() if stat and int(stat[PARENT]) in parents}
        found.extend(parents)
    return found


def cpu_seconds(pids: list[int]) -> float:
    stats = [stat for stat in map(_stat, pids) if stat]
    ticks = sum(int(stat[USER_TICKS]) + int(stat[SYSTEM_TICKS]) for stat in stats)
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
