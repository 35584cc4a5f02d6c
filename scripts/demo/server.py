"""A running sagemaker-tfs for the demo and the tests: free ports, a log file, and an end that leaves nothing."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = ROOT / "scripts" / "tensorflow_model_server"
HOST = "127.0.0.1"
# Importing TensorFlow and loading models takes some seconds, many times that on a busy machine.
START_SECONDS = 180
# An answer takes milliseconds; this is for what hangs.
ANSWER_SECONDS = 90
# After SIGTERM requests may run for 25 s, and children get 3 s more.
STOP_SECONDS = 35


class ServerError(Exception):
    """The server did not do what it should; the text says what, with the last lines of its log."""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "backslashreplace")


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row, below the range systems hand out by themselves."""
    for _ in range(1000):
        low = random.randrange(20_000, 32_000 - count)
        sockets = []
        try:
            for port in range(low, low + count):
                sockets.append(socket.socket())
                sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sockets[-1].bind((HOST, port))
            return low
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise ServerError(f"there are no {count} free ports in a row")


class Server:
    """The process and everything it started. Use as a context: leaving it ends all."""

    def __init__(
        self,
        executable: Path,
        model_dir: Path,
        *,
        model_server: Path = STAND_IN,
        instances: int = 1,
        models: int | None = None,
        env: dict[str, str] | None = None,
        options: list[str] | None = None,
        terminal: int | None = None,
    ):
        """With `models` it is in multi-model mode, with ports for so many. `options` of the command line beside ours.
        With `terminal`, a descriptor, all goes there, not into the log."""
        # A range for models has a port more than they use.
        ports = 2 * instances if models is None else 2 * instances * models + 1
        self.port = free_ports(1 + ports)
        self.rest_ports = [self.port + 2 + 2 * i for i in range(instances)]
        ours = ("SAGEMAKER_", "TFS_", "FAKE_TFS_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment |= {
            "MODEL_SERVER_PYTHON": sys.executable,
            "SAGEMAKER_SAFE_PORT_RANGE": f"{self.port + 1}-{self.port + ports}",
            "SAGEMAKER_TFS_INSTANCE_COUNT": str(instances),
            "SAGEMAKER_MULTI_MODEL": str(models is not None),
            **(env or {}),
        }
        self.command = [str(executable), "serve", "--listen", HOST, "--port", str(self.port)]
        self.command += ["--model-dir", str(model_dir), "--model-server", str(model_server), *(options or [])]
        log, self.log_path = tempfile.mkstemp(prefix="sagemaker-tfs-", suffix=".log")
        try:
            self.process = subprocess.Popen(
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=log if terminal is None else terminal,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who then stop it in good order
            )
        except OSError:
            os.unlink(self.log_path)
            raise
        finally:
            os.close(log)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_) -> None:
        try:
            self.stop()
        finally:
            os.unlink(self.log_path)

    def wait_ready(self, tell=lambda seconds, text: None) -> Server:
        """Until /ping answers 200. `tell` hears every second how it stands."""
        begin = told = time.monotonic()
        while True:
            if self.process.poll() is not None:
                raise ServerError(f"the server ended with exit code {self.process.returncode}{self.last_lines()}")
            try:
                answer = self.request("GET", "/ping")
                if answer.status == 200:
                    return self
                text = answer.text
            except OSError as error:
                text = str(error)
            now = time.monotonic()
            if now - begin > START_SECONDS:
                raise ServerError(f"not ready after {START_SECONDS} s: {text}{self.last_lines()}")
            if now - told >= 1:
                told = now
                tell(now - begin, text)
            time.sleep(0.05)

    def wait_listening(self, port: int) -> None:
        """Until a port of the model server accepts connections, which it does once its models are loaded."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, port)) == 0:
                    return
            time.sleep(0.05)
        raise ServerError(f"port {port} did not open in {START_SECONDS} s{self.last_lines()}")

    def request(self, method: str, path: str, body: bytes | str | None = None, headers=None, port=None) -> Answer:
        """A request on a connection of its own."""
        connection = http.client.HTTPConnection(HOST, port or self.port, timeout=ANSWER_SECONDS)
        try:
            body = body.encode() if isinstance(body, str) else body
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def wait(self, seconds: float) -> int:
        """Waits for the process to end by itself; its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ServerError(f"still running after {seconds} s{self.last_lines()}") from None

    def stop(self) -> int:
        """SIGTERM, and SIGKILL for what is left after a while; the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in self.children():
            os.kill(pid, signal.SIGKILL)
        return self.process.returncode

    def children(self) -> list[int]:
        """The processes of the server's session, which is its own, without the server."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                # The name, in parentheses, may hold anything; state, parent, group and session follow it.
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue  # it has ended
            pid = int(entry.name)
            if int(session) == self.process.pid != pid and state != "Z":
                found.append(pid)
        return found

    def log(self) -> str:
        return Path(self.log_path).read_text(errors="replace")

    def last_lines(self, count: int = 25) -> str:
        lines = self.log().splitlines()[-count:]
        return "\nits last output:\n" + "\n".join(f"    {line}" for line in lines)
