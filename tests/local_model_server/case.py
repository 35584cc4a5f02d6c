"""Running stand-ins: with configuration files, the test models and the calls of the REST API."""

import atexit
import functools
import tempfile

from tests.harness.constants import MODELS
from tests.harness.server import ModelServer


class StandIn(ModelServer):
    """A stand-in. The REST port is the last that it opens."""

    def post(self, call, body):
        """`call` is what follows /v1/models/, for example `demo:predict`."""
        return self.request("POST", f"/v1/models/{call}", body)

    def states(self, name):
        """The state of each version of a model."""
        answer = self.request("GET", f"/v1/models/{name}")
        return {int(entry["version"]): entry["state"] for entry in answer.json()["model_version_status"]}


def model(name, base_path=None, versions=()):
    """An entry of the list of models."""
    wanted = " ".join(f"versions: {version}" for version in versions)
    policy = f"model_version_policy {{ specific {{ {wanted} }} }}" if versions else ""
    path = MODELS / name if base_path is None else base_path
    return f"config {{ name: '{name}' base_path: '{path}' model_platform: 'tensorflow' {policy} }}"


def config(*entries):
    """The flag with a file that lists these models."""
    return _file_flag("model_config_file", f"model_config_list {{ {' '.join(entries)} }}")


def batching(**parameters):
    """The flags for batching with these parameters."""
    text = "\n".join(f"{name} {{ value: {value} }}" for name, value in parameters.items())
    return "--enable_batching=true", _file_flag("batching_parameters_file", text)


def _file_flag(flag, text):
    """The flag with a file that exists until the run ends."""
    file = tempfile.NamedTemporaryFile("w", prefix=f"{flag}-")
    atexit.register(file.close)
    file.write(text)
    file.flush()
    return f"--{flag}={file.name}"


@functools.cache
def shared():
    """One stand-in with all the models, for every test that changes nothing in it."""
    entries = [model("half_plus_three", versions=(123, 124)), *map(model, ("demo", "types", "image", "slow"))]
    server = StandIn(config(*entries), "--rest_api_timeout_in_ms=4000", "--no_such_flag=1")
    atexit.register(server.__exit__)
    server.wait_answer(server.rest_port, "/v1/models/half_plus_three/versions/123/metadata")
    return server
