"""Fixtures of this suite: the test models, a server in its own process, and an HTTP client.

The server is the real executable, found and started as a user would. It is killed when a test is done
with it, and everything that waits has a deadline. What it printed is shown when it fails to start.
"""

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
EXECUTABLE = ROOT / "scripts" / "tensorflow_model_server"
START_SECONDS = 90  # importing TensorFlow takes 2 to 4 s, many times that on a busy machine
ANSWER_SECONDS = 60
ERROR = '{\n    "error": "%s"\n}'


@functools.cache
def models():
    """The folder of the models: $SAGEMAKER_TFS_TEST_MODELS, or one made for this run."""
    folder = os.environ.get("SAGEMAKER_TFS_TEST_MODELS")
    if not folder:
        folder = scratch()
    command = [sys.executable, str(ROOT / "scripts" / "make_models.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"make_models.py failed:\n{done.stdout}{done.stderr}")
    return pathlib.Path(folder)


def scratch():
    """A new folder, removed at the end of the run."""
    folder = tempfile.mkdtemp(prefix="local-model-server-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


def write(text, name="config.txt"):
    path = scratch() / name
    path.write_text(text)
    return path


def model_config(name, policy="", base_path=None):
    return (
        f"config {{ name: '{name}' base_path: '{base_path or models() / name}' "
        f"model_platform: 'tensorflow' {policy} }}\n"
    )


def config_file(*configs):
    return write(f"model_config_list {{ {' '.join(configs)} }}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(python=sys.executable):
    return {**os.environ, "MODEL_SERVER_PYTHON": str(python), "TF_CPP_MIN_LOG_LEVEL": "3"}


def run(*arguments, executable=EXECUTABLE, python=sys.executable):
    """Runs the server to its end, for starts that are refused."""
    return subprocess.run(
        [str(executable), *map(str, arguments)],
        env=environment(python),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )


class Server:
    """A server process on free ports; a context manager."""

    def __init__(self, *arguments, rest=True):
        self.grpc_port, self.rest_port = free_port(), free_port()
        self._log = open(scratch() / "log", "w+b")
        ports = [f"--port={self.grpc_port}", f"--rest_api_port={self.rest_port if rest else 0}"]
        self.process = subprocess.Popen(
            [str(EXECUTABLE), *ports, *map(str, arguments)],
            env=environment(),
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(timeout=ANSWER_SECONDS)
        self._log.close()

    def log(self):
        self._log.seek(0)
        return self._log.read().decode()

    def wait_for(self, port):
        """Until the port accepts connections; the last port to open is REST, or gRPC without it."""
        deadline = time.monotonic() + START_SECONDS
        while not accepts(port):
            if self.process.poll() is not None:
                raise AssertionError(f"server exited with {self.process.returncode}:\n{self.log()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"port {port} did not open in {START_SECONDS} s:\n{self.log()}")
            time.sleep(0.02)
        return self

    def ready(self):
        return self.wait_for(self.rest_port)

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

    def raw(self, text):
        """(status, text) of the first answer to bytes that no client would send."""
        with socket.create_connection(("127.0.0.1", self.rest_port), ANSWER_SECONDS) as connection:
            connection.sendall(text.encode("latin-1"))
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status, response.read().decode("utf-8", "surrogateescape")

    def states(self, model):
        """{version: entry} of what the status of a model says."""
        status, text = self.request("GET", f"/v1/models/{model}")
        assert status == 200, text
        return {entry["version"]: entry for entry in json.loads(text)["model_version_status"]}

    def wait_loaded(self, model):
        """Until no version is being loaded any more."""
        deadline = time.monotonic() + START_SECONDS
        while any(entry["state"] == "LOADING" for entry in self.states(model).values()):
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)
        return self

    def post(self, call, body):
        """`call` is what follows /v1/models/, such as `demo:predict`; a body that is no text is dumped."""
        if not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        return self.request("POST", f"/v1/models/{call}", body)

    def predict(self, model, body):
        """The parsed answer to a predict request that must succeed."""
        status, text = self.post(f"{model}:predict", body)
        assert status == 200, text
        return json.loads(text)


def accepts(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@functools.cache
def shared_server():
    """One server with all the models, for every test that only asks it things."""
    both = "model_version_policy { specific { versions: 123 versions: 124 } }"
    label = "version_labels { key: 'stable' value: 123 }"
    names = ("demo", "types", "image", "slow")
    configs = [model_config("half_plus_three", both + label), *map(model_config, names)]
    server = Server(f"--model_config_file={config_file(*configs)}", "--rest_api_timeout_in_ms=4000")
    atexit.register(server.__exit__)
    return server.ready().wait_loaded("half_plus_three")
