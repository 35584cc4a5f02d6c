"""The flavor full: the packages that scripts find in Amazon's images, in the locked versions, and gRPC without TensorFlow."""

import json
import re

from tests.harness.constants import ROOT

from .case import LOCK, ContainerCase, docker, engine_or_skip, image

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
GRPC = """
import json
import os
import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

def handler(data, context):
    values = np.array(json.loads(data.read()), "<f4")
    request = predict_pb2.PredictRequest()
    request.model_spec.name = context.model_name or os.environ["TFS_DEFAULT_MODEL_NAME"]
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=values.tobytes())
    tensor.tensor_shape.dim.add(size=len(values))
    request.inputs["x"].CopyFrom(tensor)
    answer = prediction_service_pb2_grpc.PredictionServiceStub(context.channel).Predict(request, timeout=20)
    (output,) = answer.outputs.values()
    found = np.frombuffer(output.tensor_content, "<f4") if output.tensor_content else output.float_val
    return json.dumps([float(value) for value in found]), "application/json"
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
        (models / "code" / "inference.py").write_text(GRPC)
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
