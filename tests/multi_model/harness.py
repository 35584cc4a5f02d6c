"""Fixtures of this suite: a server in multi-model mode, and what SageMaker sends to it."""

import json
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from handlers.harness import ENVIRONMENT, HandlerCase  # noqa: E402  (found through the line above)
from real_tensorflow.harness import ATTRIBUTES, CSV, FAKE_MODEL_SERVER, JSON, JSON_LINES, MODELS  # noqa: E402
from server import HOST, free_ports  # noqa: E402  (found through that harness)

# For the tests:
__all__ = ["ATTRIBUTES", "CSV", "FAKE_MODEL_SERVER", "HOST", "JSON", "JSON_LINES", "free_ports"]

SCRIPTS = HERE / "scripts"
TARGET = "X-Amzn-SageMaker-Target-Model"


class MultiModelCase(HandlerCase):
    """A test case with servers in multi-model mode. They end with the class, and with `ends_well` before."""

    @classmethod
    def start_multi(cls, model_dir, models=2, env=None, **options):
        """A server that may not be ready yet, with ports for so many models."""
        env = {"TF_CPP_MIN_LOG_LEVEL": "2", **ENVIRONMENT, **(env or {})}
        return cls.start(model_dir, models=models, env=env, **options)

    @classmethod
    def archive(cls, model_dir, name, model, script=None):
        """Puts a model where SageMaker puts it, and a script of `scripts/` beside it; its url."""
        folder = model_dir / name / "model"
        folder.mkdir(parents=True)
        (folder / model).symlink_to(MODELS / model)
        if script:
            cls.script(folder, script)
        return str(folder)

    @classmethod
    def script(cls, folder, name):
        # A copy, for Python leaves its caches beside what it imports.
        shutil.copytree(SCRIPTS / name, folder / "code", ignore=shutil.ignore_patterns("__pycache__"))

    @classmethod
    def load(cls, server, name, url):
        body = json.dumps({"model_name": name, "url": url})
        return server.request("POST", "/models", body, {"Content-Type": JSON})

    def invoke_model(self, server, name, body, content_type=JSON, **headers):
        headers = {"Content-Type": content_type, **headers}
        return server.request("POST", f"/models/{name}/invoke", body, headers)

    def check_json(self, answer, value, status=200):
        self.assertEqual(answer.status, status, answer.text)
        self.assertEqual(json.loads(answer.body), value)

    def check_error(self, answer, status, text):
        """An error as JSON, with this text to the letter."""
        self.check_json(answer, {"error": text}, status)
