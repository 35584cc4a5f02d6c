"""Fixtures of this suite: the real executable, with configuration files and the test models, and an HTTP client."""

import atexit
import functools
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = pathlib.Path(os.environ.get("SAGEMAKER_TFS_TEST_MODELS", ROOT / ".models"))
EXECUTABLE = ROOT / "scripts" / "tensorflow_model_server"
START_SECONDS = 90  # importing TensorFlow takes 2 to 4 s, many times that on a busy machine
ANSWER_SECONDS = 60


def scratch():
    """A new folder, removed at the end of the run."""
    folder = tempfile.mkdtemp(prefix="local-model-server-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


def model(name, base_path=None, versions=()):
    """An entry of the list of models."""
    wanted = " ".join(f"versions: {version}" for version in versions)
    policy = f"model_version_policy {{ specific {{ {wanted} }} }}" if versions else ""
    path = MODELS / name if base_path is None else base_path
    return f"config {{ name: '{name}' base_path: '{path}' model_platform: 'tensorflow' {policy} }}"


def file_flag(flag, text):
    path = scratch() / "config.txt"
    path.write_text(text)
    return f"--{flag}={path}"


def config(*entries):
    """The flag with a file that lists these models."""
    return file_flag("model_config_file", f"model_config_list {{ {' '.join(entries)} }}")


def batching(**parameters):
    """The flags for batching with these parameters."""
    text = "\n".join(f"{name} {{ value: {value} }}" for name, value in parameters.items())
    return "--enable_batching=true", file_flag("batching_parameters_file", text)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def environment(python=sys.executable):
    return {**os.environ, "MODEL_SERVER_PYTHON": str(python), "TF_CPP_MIN_LOG_LEVEL": "3"}


def run(*arguments, executable=EXECUTABLE, python=sys.executable):
    """Runs the server to its end, for starts that are refused: the exit code and all that was printed."""
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [executable, f"--port={free_port()}", *arguments]
    done = subprocess.run(command, env=environment(python), timeout=START_SECONDS, **output)
    return done.returncode, done.stdout


class Server:
    """A server process on free ports; a context manager."""

    def __init__(self, *arguments):
        self.grpc_port, self.rest_port = free_port(), free_port()
        self._log = open(scratch() / "log", "w+b")
        ports = [f"--port={self.grpc_port}", f"--rest_api_port={self.rest_port}"]
        self.process = subprocess.Popen(
            [EXECUTABLE, *ports, *arguments], env=environment(), stdout=self._log, stderr=subprocess.STDOUT
        )

        try:
            self.wait_until(lambda: accepts(self.rest_port))  # the last port to open
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(timeout=ANSWER_SECONDS)
        self._log.close()

    def log(self):
        self._log.seek(0)
        return self._log.read().decode()

    def wait_until(self, condition):
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"exit code {self.process.poll()}, log:\n{self.log()}")
            time.sleep(0.02)

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=ANSWER_SECONDS)

    def request(self, method, path, body=None):
        """(status, text) of a request on a connection of its own."""
        connection = self.connect()
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "surrogateescape")
        finally:
            connection.close()

    def post(self, call, body):
        """`call` is what follows /v1/models/, such as `demo:predict`."""
        return self.request("POST", f"/v1/models/{call}", body.encode())

    def states(self, name):
        """{version: entry} of what the status of a model says."""
        status, text = self.request("GET", f"/v1/models/{name}")
        assert status == 200, text
        return {int(entry["version"]): entry for entry in json.loads(text)["model_version_status"]}


@functools.cache
def shared_server():
    """One server with all the models, for every test that only asks it things."""
    names = ("demo", "types", "image", "slow")
    entries = [model("half_plus_three", versions=(123, 124)), *map(model, names)]
    server = Server(config(*entries), "--rest_api_timeout_in_ms=4000", "--no_such_flag=1")
    atexit.register(server.__exit__)
    server.wait_until(lambda: server.states("half_plus_three")[123]["state"] == "AVAILABLE")
    return server
