"""The serializers and deserializers of the SageMaker SDK, in pairs, with TensorFlow behind the server.

The SDK is installed in an environment of its own, target/tools/sdk, whose Python runs a program for each pair.
"""

import json
import subprocess
import unittest

from tests.harness.case import ServerCase
from tests.harness.constants import ROOT

SDK = ROOT / "target" / "tools" / "sdk" / "bin" / "python"
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
