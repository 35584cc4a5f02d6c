"""start.sh, curl.sh, stop.sh and the compose file on a built image, as a user calls them."""

import os
import shutil
import subprocess

from tests.harness.client import run
from tests.harness.constants import HOST, ROOT
from tests.harness.ports import free_ports

from .case import LABEL, RUN, ContainerCase, docker, engine_or_skip, image, inspect

setUpModule = engine_or_skip


class Scripts(ContainerCase):
    def setUp(self):
        # Containers inherit the label of their image, by which they are found at the end.
        self.assertIn(LABEL.split("=")[1], inspect(image("slim"))["Config"]["Labels"].values())
        self.name = f"{RUN}-start"
        self.clean_up(docker, "rm", "--force", self.name, code=None)
        self.port = free_ports()

    def script(self, name, *options, code=0):
        command = [ROOT / "scripts" / name, "--version", "2.19", "--arch", "cpu", "--flavor", "slim"]
        return run(*command, "--repository", f"{RUN}/serving", "--name", self.name, *options, code=code)

    def curl(self, *options, code=0):
        return self.script("curl.sh", "--port", self.port, *options, code=code)

    def test_start_curl_stop(self):
        text = self.script("start.sh", "--model-dir", self.models(), "--port", self.port)
        self.assertIn(f"serves at http://{HOST}:{self.port}", text)
        self.assertIn("already", self.script("start.sh", "--model-dir", self.models(), code=1))
        text = self.curl()
        self.assertEqual(text.count('"predictions": [3.5, 4.0, 5.5'), 5, text)
        self.assertEqual(text.count("\n3.5\n4.0\n5.5\n"), 1, text)
        self.assertIn("AVAILABLE", text)
        self.assertIn("predictions", self.curl("--data", "1.0", "--type", "text/csv"))
        # A refused request is a failure of the script.
        self.assertIn("Unsupported", self.curl("--data", "1", "--type", "x/y", code=22))
        self.assertIn("exit code 0", self.script("stop.sh"))
        self.assertIn("there is no container", self.script("stop.sh", code=1))

    def test_multi_model(self):
        models = self.folder()
        self.models(parent=models / "one" / "model")
        self.script("start.sh", "--multi-model", "--model-dir", models, "--port", self.port)
        load = '{"model_name": "one", "url": "/opt/ml/models/one/model"}'
        self.assertIn("Successfully loaded", self.curl("--path", "/models", "--data", load))
        self.assertIn("exit code 0", self.script("stop.sh"))

    def test_a_start_that_fails_leaves_nothing(self):
        text = self.script("start.sh", "--model-dir", self.folder(), "--port", self.port, code=1)
        self.assertIn("no model found in /opt/ml/model", text)
        self.assertIn("the container has ended with exit code 1", text)
        self.assertEqual(docker("ps", "--all", "--quiet", "--filter", f"name={self.name}"), "")


class Compose(ContainerCase):
    def test_up_and_down(self):
        for compose in (["docker", "compose"], ["docker-compose"]):
            if shutil.which(compose[0]) and not subprocess.run([*compose, "version"], capture_output=True).returncode:
                break
        else:
            self.skipTest("SKIPPED: there is no docker compose")
        port = free_ports()
        env = {**os.environ, "IMAGE": image("slim"), "MODELS": str(self.models()), "PORT": str(port)}
        command = [*compose, "--file", ROOT / "docker" / "compose.yaml", "--project-name", RUN]
        self.clean_up(run, *command, "down", "--timeout", "5", env=env)
        run(*command, "up", "--detach", env=env)
        # 502 while it starts.
        retries = ("--retry", "60", "--retry-delay", "1", "--retry-all-errors")
        run("curl", "--silent", "--fail", "--noproxy", "*", *retries, f"http://{HOST}:{port}/ping")
