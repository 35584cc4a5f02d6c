"""A test case with servers in multi-model mode, and what SageMaker sends to them."""

import json
import shutil
from pathlib import Path

from tests.harness.case import Case
from tests.harness.constants import JSON, MODELS

SCRIPTS = Path(__file__).resolve().parent / "scripts"


class MultiModelCase(Case):
    @classmethod
    def archive(cls, model_dir, name, model, script=None):
        """Puts a model where SageMaker puts it, with its handler from `scripts/`; its url."""
        folder = model_dir / name / "model"
        folder.mkdir(parents=True)
        (folder / model).symlink_to(MODELS / model)
        if script:
            cls.copy_script(folder, script)
        return str(folder)

    @classmethod
    def copy_script(cls, folder, name):
        # Python leaves caches next to what it imports, so never in `scripts/`.
        shutil.copytree(SCRIPTS / name, folder / "code", ignore=shutil.ignore_patterns("__pycache__"))

    @classmethod
    def load(cls, server, name, url):
        return server.request("POST", "/models", json.dumps({"model_name": name, "url": str(url)}))

    def invoke_model(self, server, name, body, content_type=JSON, **options):
        return self.invoke(server, body, content_type, path=f"/models/{name}/invoke", **options)
