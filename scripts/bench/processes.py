"""What is measured: sagemaker-tfs with a fake model server as its child, and nginx with one of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from shared.processes import (
    WORKER,
    Processes,
    cpu_seconds,
    descendants,
    free_ports,
    memory,
    program,
    reset_peak,
    wait_for,
)

HERE = Path(__file__).resolve().parent
MODEL = "half_plus_three"
STATUS_PATH = f"/v1/models/{MODEL}"


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
        return [pid for pid in descendants(self.process.pid) if program(pid).startswith(WORKER)]

    def cpu_seconds(self) -> float:
        """Of the server and its Python workers, without the model server."""
        return cpu_seconds([self.process.pid, *self.workers()])

    def memory(self) -> tuple[int, int]:
        """Of the server alone."""
        return memory([self.process.pid])

    def reset_peak(self) -> None:
        reset_peak([self.process.pid, *self.workers()])


class Nginx:
    """nginx with a model server of its own."""

    def __init__(self, processes: Processes, model_server: Path, workers: str = "auto"):
        self.processes = processes
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
            "WORKERS": workers,
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

    def stop(self) -> None:
        self.processes.stop(self.process)

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pids)

    def memory(self) -> tuple[int, int]:
        return memory(self.pids)

    def reset_peak(self) -> None:
        reset_peak(self.pids)
