"""The SageMaker SDK: its serializers and deserializers in pairs, and the archives of its ModelBuilder.

It is installed in environments of its own, target/tools/sdk and target/tools/sdk-v3. Their Python runs the programs.
"""

import json
import os
import shutil
import subprocess
import unittest

from tests.harness.case import ServerCase
from tests.harness.client import run
from tests.harness.constants import MODELS, ROOT

SDK = ROOT / "target" / "tools" / "sdk" / "bin" / "python"
SDK_V3 = ROOT / "target" / "tools" / "sdk-v3" / "bin"
# What ModelBuilder's build(), which asks AWS, does to a folder with an MLflow model before it goes into an archive.
BUILDER = """
import sys
from pathlib import Path
import numpy as np
from sagemaker.serve.builder.schema_builder import SchemaBuilder
from sagemaker.serve.detector.pickler import save_pkl
from sagemaker.serve.model_server.tensorflow_serving.prepare import prepare_for_tf_serving

save_pkl(Path(sys.argv[1], "code"), SchemaBuilder(np.array([1.0, 2.0]), np.array([3.5, 4.0])))
prepare_for_tf_serving(sys.argv[1], [], {"auto": False})
"""
# Takes the port, sends an array as the SDK does, and prints the answer.
CLIENT = """
import io, sys, urllib.request
import numpy as np
body = io.BytesIO()
np.save(body, np.array([1.0, 2.0, 5.0]))
headers = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[1]}/invocations", body.getvalue(), headers)
print(np.load(io.BytesIO(urllib.request.urlopen(request, timeout=60).read())).tolist())
"""
# Takes the port and prints what each pair of a serializer and a deserializer gives.
PROGRAM = """
import http.client, io, json, sys
import numpy as np
from sagemaker.core.deserializers import CSVDeserializer, JSONDeserializer, JSONLinesDeserializer, NumpyDeserializer
from sagemaker.core.serializers import CSVSerializer, JSONLinesSerializer, JSONSerializer, NumpySerializer

ROWS = [[1.5, 2.0], [3.0, -4.25]]
ENCODERS = [
    (CSVSerializer(), ROWS),
    (CSVSerializer(), np.array(ROWS)),
    (JSONSerializer(), {"instances": ROWS}),
    (JSONSerializer(), ROWS),
    (JSONLinesSerializer(), ROWS),
    (NumpySerializer(), ROWS),
    (NumpySerializer(dtype="float32"), np.array(ROWS)),
]
DECODERS = [CSVDeserializer(), JSONDeserializer(), JSONLinesDeserializer(), NumpyDeserializer()]
found = []
for serializer, data in ENCODERS:
    for deserializer in DECODERS:
        connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
        # As the SDK's predictor does it.
        accept = deserializer.ACCEPT if isinstance(deserializer.ACCEPT, str) else ", ".join(deserializer.ACCEPT)
        headers = {
            "Content-Type": serializer.CONTENT_TYPE,
            "Accept": accept,
            "X-Amzn-SageMaker-Custom-Attributes": "tfs-signature-name=float32_2",
        }
        connection.request("POST", "/invocations", serializer.serialize(data), headers)
        response = connection.getresponse()
        body, content_type = response.read(), response.getheader("Content-Type")
        value = body.decode(errors="replace")
        if response.status == 200:
            value = deserializer.deserialize(io.BytesIO(body), content_type)
            value = value.tolist() if hasattr(value, "tolist") else value
        names = type(serializer).__name__, type(deserializer).__name__
        found.append([*names, response.status, content_type, value])
print(json.dumps(found))
"""
VALUES = {
    "CSVDeserializer": ("text/csv", [["1.5", "2.0"], ["3.0", "-4.25"]]),
    "JSONDeserializer": ("application/json", {"predictions": [[1.5, 2.0], [3.0, -4.25]]}),
    "JSONLinesDeserializer": ("application/jsonlines", [[1.5, 2.0], [3.0, -4.25]]),
    "NumpyDeserializer": ("application/x-npy", [[1.5, 2.0], [3.0, -4.25]]),
}


class Sdk(ServerCase):
    @unittest.skipUnless(SDK.exists(), "the SDK is not installed: scripts/test.sh installs it into target/tools/sdk")
    def test_serializers_and_deserializers_in_pairs(self):
        server = self.start(self.model_dir("echo")).wait_ready()
        command = [SDK, "-c", PROGRAM, str(server.port)]
        program = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertEqual(program.returncode, 0, program.stderr)
        pairs = json.loads(program.stdout.splitlines()[-1])
        self.assertEqual(len(pairs), 28)
        for serializer, deserializer, status, content_type, value in pairs:
            with self.subTest(serializer=serializer, deserializer=deserializer):
                self.assertEqual((status, (content_type, value)), (200, VALUES[deserializer]))

    @unittest.skipUnless(
        (SDK_V3 / "python").exists(), "SKIPPED: scripts/test.sh installs the SDK into target/tools/sdk-v3"
    )
    def test_an_archive_of_model_builder_with_its_handler(self):
        folder = self.folder()
        # The folder of a model that MLflow has saved.
        shutil.copytree(MODELS / "half_plus_three" / "123", folder / "data" / "model")
        # The SDK imports boto3, which wants a region; the handler imports the SDK.
        env = {"PATH": f"{SDK_V3}:{os.environ['PATH']}", "AWS_DEFAULT_REGION": "eu-west-1"}
        run(SDK_V3 / "python", "-c", BUILDER, folder, env={**env, "HOME": str(folder)})
        self.assertEqual(sorted(path.name for path in folder.iterdir()), ["1", "code", "data", "shared_libs"])
        settings = {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"}
        server = self.start(folder, env={**env, **settings}).wait_ready()
        self.assertEqual(run(SDK_V3 / "python", "-c", CLIENT, str(server.port)).splitlines()[-1], "[3.5, 4.0, 5.5]")
