"""A running sagemaker-tfs, and a running model server without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .client import Answer, request
from .constants import HOST, SERVER, STAND_IN
from .ports import free_ports
from .processes import Process


class Server(Process):
    """sagemaker-tfs with its model servers, on free ports."""

    def __init__(
        self,
        model_dir: Path,
        *,
        executable: Path = SERVER,
        model_server: Path = STAND_IN,
        instances: int = 1,
        models: int | None = None,
        env: dict[str, str] | None = None,
        options: list[str] | None = None,
        terminal: int | None = None,
    ):
        """With `models` it runs in multi-model mode and has ports for that many. `options` go to the command line."""
        # Each instance has a port for gRPC and one for REST; multi-model mode wants one port more than it uses.
        ports = 2 * instances if models is None else 2 * instances * models + 1
        self.port = free_ports(1 + ports)
        self.rest_ports = [self.port + 2 + 2 * instance for instance in range(instances)]
        argv = [executable, "serve", "--listen", HOST, "--port", self.port]
        argv += ["--model-dir", model_dir, "--model-server", model_server, *(options or [])]
        settings = {
            "SAGEMAKER_SAFE_PORT_RANGE": f"{self.port + 1}-{self.port + ports}",
            "SAGEMAKER_TFS_INSTANCE_COUNT": str(instances),
            "SAGEMAKER_MULTI_MODEL": str(models is not None),
        }
        super().__init__(argv, {**settings, **(env or {})}, terminal=terminal)

    def wait_ready(self, progress: Callable | None = None) -> Server:
        """Until /ping answers 200."""
        self.wait_answer(self.port, "/ping", progress=progress)
        return self

    def request(self, method: str, path: str, body=None, headers=None, port: int | None = None) -> Answer:
        return request(port or self.port, method, path, body, headers)


class ModelServer(Process):
    """The stand-in for TensorFlow Serving, or another model server with the same options, on free ports."""

    def __init__(self, *arguments, executable: Path = STAND_IN, rest: bool = True, env: dict[str, str] | None = None):
        self.grpc_port = free_ports(2)
        self.rest_port = self.grpc_port + 1
        ports = [f"--port={self.grpc_port}", f"--rest_api_port={self.rest_port if rest else 0}"]
        super().__init__([executable, *ports, *arguments], env)

    def request(self, method: str, path: str, body=None, headers=None) -> Answer:
        return request(self.rest_port, method, path, body, headers)
