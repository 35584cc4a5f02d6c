"""The flavor full: its packages, in the locked versions, and gRPC without TensorFlow."""

import json
import re

from tests.harness.constants import ROOT

from .case import LOCK, ContainerCase, docker, engine_or_skip, image, inspect

setUpModule = engine_or_skip

# Modules whose names are not their packages'.
MODULES = {"grpcio": "grpc", "protobuf": "google.protobuf", "pyyaml": "yaml", "scikit-learn": "sklearn"}
MODULES["tensorflow-serving-api"] = "tensorflow_serving.apis.prediction_service_pb2_grpc"
# Imports each module given, and prints the versions of all packages from PyPI.
IMPORTS = """
import importlib, importlib.metadata, json, sys, sysconfig
for name in sys.argv[1:]:
    importlib.import_module(name)
found = importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
print(json.dumps({one.metadata["Name"].lower().replace("_", "-").replace(".", "-"): one.version for one in found}))
"""


def wanted():
    """The packages that the flavor promises."""
    texts = [(ROOT / "docker" / "full" / name).read_text() for name in ("packages.txt", "packages-no-deps.txt")]
    return sorted(set(re.findall(r"^[\w-]+", "\n".join(texts), re.MULTILINE)))


class Full(ContainerCase):
    def python(self, program, *arguments, code=0):
        return docker("run", "--rm", "--entrypoint", "python3", image("full"), "-c", program, *arguments, code=code)

    def test_every_package_can_be_imported_and_has_its_locked_version(self):
        packages = wanted()
        found = json.loads(self.python(IMPORTS, *(MODULES.get(name, name) for name in packages)))
        self.assertEqual(inspect(image("full"))["Config"]["Labels"]["sagemaker-tfs.flavor"], "full")
        locked = set(re.findall(r"^([\w-]+)==([\w.]+)", LOCK.read_text(), re.MULTILINE))
        self.assertLessEqual(set(packages), set(found))
        self.assertLessEqual(set(found.items()), locked)
        sbom = "/usr/local/share/sagemaker-tfs/sbom/packages.cdx.json"
        listed = json.loads(docker("run", "--rm", "--entrypoint", "cat", image("full"), sbom))["components"]
        purls = {item.get("purl") for item in listed}
        self.assertLessEqual({f"pkg:pypi/{name}@{version}" for name, version in found.items()}, purls)

    def test_a_handler_asks_the_model_over_grpc(self):
        models = self.tensorflow_models("half_plus_three")
        (models / "code").mkdir()
        section = (ROOT / "docs" / "HANDLERS.md").read_text().partition("\n### gRPC\n")[2]
        (models / "code" / "inference.py").write_text(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1])
        container = self.serve_tensorflow("full", models)
        answer = self.invoke(container, "[1.0, 2.0, 5.0]")
        self.assertEqual((answer.status, answer.text), (200, "[3.5, 4.0, 5.5]"), container.logs())
        self.assertNotIn("gevent is not installed", container.logs())

    def test_tensorflow_itself_is_not_there_and_the_message_says_what_to_do(self):
        program = "import tensorflow as tf; tf.make_tensor_proto([1.0])"
        text = self.python(program, code=1)
        self.assertIn("ModuleNotFoundError: tensorflow.make_tensor_proto is not here", text)
        self.assertIn("code/requirements.txt", text)
        # An archive's own TensorFlow comes first.
        own = "mkdir -p /tmp/lib/tensorflow; echo v = 1 >/tmp/lib/tensorflow/__init__.py; "
        script = own + "PYTHONPATH=/tmp/lib python3 -c 'import tensorflow; print(tensorflow.v)'"
        self.assertEqual(docker("run", "--rm", "--entrypoint", "sh", image("full"), "-c", script), "1")
