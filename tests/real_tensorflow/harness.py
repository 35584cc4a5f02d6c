"""Fixtures of this suite: where the executables and models are, and the server with what clients send."""

import json
import os
import pathlib
import shutil
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "demo"))

from server import Server  # noqa: E402  (found through the line above)

SERVER = pathlib.Path(os.environ.get("SAGEMAKER_TFS_TEST_SERVER", ROOT / "target/debug/sagemaker-tfs"))
FAKE_MODEL_SERVER = pathlib.Path(
    os.environ.get("SAGEMAKER_TFS_TEST_FAKE_MODEL_SERVER", ROOT / "target/debug/examples/fake_model_server")
)
MODELS = pathlib.Path(os.environ.get("SAGEMAKER_TFS_TEST_MODELS", ROOT / ".models"))

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
JSON = "application/json"
JSON_LINES = "application/jsonlines"
CSV = "text/csv"

# What TensorFlow Serving answers, to the byte: half_plus_three to 1, 2 and 5.
PREDICTIONS = '{\n    "predictions": [3.5, 4.0, 5.5\n    ]\n}'
# The same to a single instance that is a list.
ROW = '{\n    "predictions": [[3.5, 4.0, 5.5]\n    ]\n}'


class Case(unittest.TestCase):
    """A test case with folders and servers that are gone after the class, whatever happened."""

    maxDiff = None

    @classmethod
    def folder(cls):
        folder = tempfile.mkdtemp(prefix="sagemaker-tfs-test-")
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        return pathlib.Path(folder).resolve()

    @classmethod
    def model_dir(cls, *names):
        """A model directory with some of the test models."""
        folder = cls.folder()
        for name in names:
            (folder / name).symlink_to(MODELS / name)
        return folder

    @classmethod
    def start(cls, model_dir, **options):
        """A server that may not be ready yet; it ends after the class."""
        server = Server(SERVER, model_dir, **options)
        cls.addClassCleanup(server.__exit__)
        return server

    def invoke(self, server, body, content_type=JSON, attributes=None, accept=None):
        headers = {"Content-Type": content_type, ATTRIBUTES: attributes, "Accept": accept}
        headers = {name: value for name, value in headers.items() if value is not None}
        return server.request("POST", "/invocations", body, headers)

    def check(self, server, body, expected, status=200, **request):
        """The answer's status, body to the byte and content type."""
        answer = self.invoke(server, body, **request)
        self.assertEqual((answer.status, answer.text), (status, expected), body)
        self.assertEqual(answer.headers["Content-Type"], JSON)

    def error_text(self, server, body, status=400, **request):
        """The text of an error answer, which must be JSON."""
        answer = self.invoke(server, body, **request)
        self.assertEqual(answer.status, status, answer.text)
        return json.loads(answer.body)["error"]
