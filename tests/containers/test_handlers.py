"""Python handlers in the default image: packages in `lib`, processes left behind, and any user."""

from .case import ContainerCase, engine_or_skip

setUpModule = engine_or_skip

PAIR = """
import helper
import json
import sys
import requests

def input_handler(data, context):
    return json.dumps({"instances": [helper.double(float(data.read()))]})

def output_handler(response, context):
    return json.dumps([response.json(), helper.__file__, sys.executable]), "application/json"
"""

SINGLE = """
import subprocess
import sys
import requests

def handler(data, context):
    if data.read() == b"orphan":
        subprocess.Popen([sys.executable, "-c", "import subprocess; subprocess.Popen(['sleep', '0.3'])"]).wait()
    response = requests.post(context.rest_uri, data='{"instances": [1.0]}', timeout=20)
    return response.content, context.accept_header
"""


class Handlers(ContainerCase):
    def single(self, **options):
        return self.serve("python", self.models(inference=SINGLE), **options)

    def test_a_pair_with_its_own_packages(self):
        models = self.models(inference=PAIR)
        (models / "code" / "lib" / "helper").mkdir(parents=True)
        (models / "code" / "lib" / "helper" / "__init__.py").write_text("def double(x): return 2 * x\n")
        # With `lib` this file is ignored.
        (models / "code" / "requirements.txt").write_text("there-is-no-such-package==1\n")
        container = self.serve("python", models, env={"FAKE_TFS_ANSWER": "echo"})
        found = [{"instances": [5.0]}, "/opt/ml/model/code/lib/helper/__init__.py", "/usr/bin/python3"]
        self.check_json(self.invoke(container, "2.5", "text/plain"), found)

    def test_processes_that_a_handler_leaves_behind_are_reaped(self):
        container = self.single()
        for _ in range(5):
            self.check_predictions(self.invoke(container, "orphan"))
        container.wait_for(lambda: not container.strangers("sagemaker-tfs", "sagemaker-tfs-p", "tensorflow_mode"))

    def test_any_user(self):
        options = ["--user", "65534:65534", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        container = self.single(options=options)
        self.check_predictions(self.invoke(container, "go"))
        self.assertEqual(container.shell("id -u"), "65534")
