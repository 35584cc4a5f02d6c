"""What is measured: sagemaker-tfs with a model server as its child, and nginx with one of its own."""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.harness.case import ServerCase
from tests.harness.constants import ROOT
from tests.harness.ports import free_ports
from tests.harness.processes import Process, cpu_seconds, memory, program, reset_peak
from tests.harness.server import ModelServer, Server

HERE = Path(__file__).resolve().parent
# Where scripts/bench.sh builds the executables.
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
FAKE_MODEL_SERVER = TARGET / "examples" / "fake_model_server"
MODEL = "half_plus_three"
STATUS_PATH = f"/v1/models/{MODEL}"


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Target(Process):
    """A running server, and what /proc says about it."""

    def pids(self) -> list[int]:
        """The processes of the server itself."""
        return [self.pid]

    def workers(self) -> list[int]:
        """The processes that run Python handlers."""
        return [pid for pid in self.children() if program(pid) == "sagemaker-tfs-python"]

    def memory(self) -> tuple[int, int]:
        return memory(self.pids())

    def reset_peak(self) -> None:
        reset_peak([*self.pids(), *self.workers()])

    def threads(self) -> list[Path]:
        """The threads of the server itself."""
        return [thread for pid in self.pids() for thread in Path(f"/proc/{pid}/task").iterdir()]

    def counters(self) -> tuple[float, int]:
        """Processor time of server and workers; voluntary context switches of the server's threads that run now."""
        switches = 0
        for thread in self.threads():
            with contextlib.suppress(OSError):  # the thread has just ended
                status = (thread / "status").read_text()
                switches += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
        return cpu_seconds([*self.pids(), *self.workers()]), switches


def make_model(model_dir: Path, handler: str) -> Path:
    """A model directory with a script of handlers/ if one is named."""
    ServerCase.empty_model(model_dir / MODEL, "1")
    if handler:
        (model_dir / "code").mkdir()
        shutil.copy(HERE / "handlers" / f"{handler}.py", model_dir / "code" / "inference.py")
    return model_dir


class Ours(Server, Target):
    """sagemaker-tfs, with a script of handlers/ if one is named."""

    def __init__(self, bench: "Bench", handler: str = "", model_server: Path = FAKE_MODEL_SERVER, **settings: str):
        model_dir = make_model(Path(tempfile.mkdtemp(dir=bench.scratch)), handler)
        super().__init__(model_dir, executable=bench.server, model_server=model_server, env=settings)


class Nginx(Target):
    def __init__(self, home: Path, backend: int, workers: str):
        self.port = free_ports()
        home.mkdir()
        config = (HERE / "nginx.conf").read_text()
        for word, value in {"DIR": home, "PORT": self.port, "WORKERS": workers, "BACKEND": backend}.items():
            config = config.replace(f"@{word}@", str(value))
        (home / "nginx.conf").write_text(config)
        super().__init__(["nginx", "-p", home, "-c", home / "nginx.conf", "-e", home / "nginx.log"])

    def wait_ready(self) -> None:
        self.wait_answer(self.port, "/", status=404)

    def pids(self) -> list[int]:
        return [self.pid, *self.children()]


class Bench(argparse.Namespace):
    """The options of a run, its folder, and its servers: those that a part starts end with it."""

    scratch: Path
    running: contextlib.ExitStack

    def start(self, *arguments, **settings) -> Ours:
        return self.running.enter_context(Ours(self, *arguments, **settings))

    def start_nginx(self, model_server: Path, workers: str = "auto") -> Nginx:
        """nginx with a model server of its own."""
        config = self.scratch / "models.config"
        config.write_text(f'model_config_list {{ config {{ name: "{MODEL}" }} }}\n')
        backend = ModelServer(f"--model_config_file={config}", executable=model_server)
        self.running.enter_context(backend).wait_answer(backend.rest_port, STATUS_PATH)
        return self.running.enter_context(Nginx(self.scratch / "nginx", backend.rest_port, workers))
