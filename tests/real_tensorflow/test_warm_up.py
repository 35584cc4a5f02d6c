"""Warm-up with TensorFlow: the file that TensorFlow Serving plays, made by the script of the guide, and a request."""

import re
import shutil
import sys

import tensorflow as tf

from tests.harness.case import ServerCase
from tests.harness.client import run
from tests.harness.constants import INSTANCES, MODELS, PREDICTIONS, ROOT

FILE = "assets.extra/tf_serving_warmup_requests"


def script_of_the_guide():
    return re.search(r"`make_warmup\.py`:\n\n```python\n(.*?)```", (ROOT / "docs/GUIDE.md").read_text(), re.S)[1]


class WarmUp(ServerCase):
    def models(self):
        """A folder with a copy of half_plus_three; the folder and that of version 123."""
        folder = self.folder()
        shutil.copytree(MODELS / "half_plus_three" / "123", folder / "models" / "half_plus_three" / "123")
        return folder, folder / "models" / "half_plus_three" / "123"

    def test_the_file_that_the_guide_makes_is_played(self):
        folder, version = self.models()
        (folder / "make_warmup.py").write_text(script_of_the_guide())
        run("env", "-C", folder, sys.executable, "make_warmup.py")
        server = self.start(folder / "models", env={"SAGEMAKER_TFS_WARMUP_ITERATIONS": "3"}).wait_ready()
        self.wait_for_log(server, f"{version / FILE}. Number of warmup records read: 1.")
        self.check(self.invoke(server, INSTANCES), PREDICTIONS)

    def test_a_broken_file_ends_the_start_with_tensorflow_servings_reason(self):
        for content, reason in ((b"no record" * 9, "in TFRecord format"), (None, "Failed to parse warmup record")):
            folder, version = self.models()
            (version / FILE).parent.mkdir()
            if content:
                (version / FILE).write_bytes(content)
            else:
                with tf.io.TFRecordWriter(str(version / FILE)) as writer:
                    writer.write(b"\xff no PredictionLog")
            self.check_refused(self.start(folder / "models"), reason)

    def test_a_request_through_the_server(self):
        folder, _ = self.models()
        for body, expected in ((INSTANCES, None), ('{"instances": ["x"]}', "warm.json failed: status 400: ")):
            (folder / "models" / "warm.json").write_text(body)
            server = self.start(folder / "models", env={"SAGEMAKER_TFS_WARMUP_REQUEST": "warm.json"})
            if expected:
                self.check_refused(server, expected)
            else:
                self.wait_for_log(server.wait_ready(), "warm-up: answered 1 of 1 requests")

    def test_labels(self):
        env = {"SAGEMAKER_TFS_VERSION_LABELS": "stable=123,canary=124"}
        server = self.start(self.model_dir("half_plus_three"), env=env).wait_ready()
        path = "/tfs/v1/models/half_plus_three/labels/{}:predict"
        for label in ("stable", "canary"):
            self.check(server.request("POST", path.format(label), INSTANCES), PREDICTIONS)
        answer = server.request("POST", path.format("old"), INSTANCES)
        self.check_error(answer, 400, "Unrecognized servable version label: old")
