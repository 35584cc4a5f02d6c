"""start.sh, curl.sh and stop.sh on a built image, as a user calls them."""

import os
import shutil
import socket
import subprocess
import unittest
import urllib.request

from harness import LABEL, ROOT, RUN, Case, docker, engine_or_skip, image, wait_for

setUpModule = engine_or_skip


class Scripts(Case):
    def setUp(self):
        image("slim")
        self.name = f"{RUN}-start"
        self.addCleanup(docker, "rm", "--force", self.name, check=False)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])

    def run_script(self, script, *options, code=0):
        command = [ROOT / "scripts" / script, "--version", "2.19", "--arch", "cpu", "--flavor", "slim"]
        command += ["--repository", f"{RUN}/serving", "--name", self.name, *options]
        done = subprocess.run(
            list(map(str, command)),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        self.assertEqual(done.returncode, code, done.stdout)
        return done.stdout

    def test_start_curl_stop(self):
        text = self.run_script("start.sh", "--model-dir", self.models(), "--port", self.port)
        self.assertIn(f"serves at http://127.0.0.1:{self.port}", text)
        self.assertIn("already", self.run_script("start.sh", "--model-dir", self.models(), code=1))
        text = self.run_script("curl.sh", "--port", self.port)
        self.assertEqual(text.count('"predictions": [3.5, 4.0, 5.5'), 6, text)
        self.assertIn("AVAILABLE", text)
        text = self.run_script("curl.sh", "--port", self.port, "--data", "1.0", "--type", "text/csv")
        self.assertIn("predictions", text)
        # A refused request is a failure of the script.
        self.assertIn(
            "Unsupported", self.run_script("curl.sh", "--port", self.port, "--data", "1", "--type", "x/y", code=22)
        )
        self.assertIn("exit code 0", self.run_script("stop.sh"))
        self.assertIn("there is no container", self.run_script("stop.sh", code=1))

    def test_multi_model(self):
        models = self.folder()
        self.models(parent=models / "one" / "model")
        self.run_script("start.sh", "--multi-model", "--model-dir", models, "--port", self.port)
        load = ["--data", '{"model_name": "one", "url": "/opt/ml/models/one/model"}']
        self.assertIn(
            "Successfully loaded", self.run_script("curl.sh", "--port", self.port, "--path", "/models", *load)
        )
        self.assertIn("exit code 0", self.run_script("stop.sh"))

    def test_a_start_that_fails_leaves_nothing(self):
        text = self.run_script("start.sh", "--model-dir", self.folder(), "--port", self.port, code=1)
        self.assertIn("no model found in /opt/ml/model", text)
        self.assertIn("the container has ended with exit code 1", text)
        self.assertEqual(docker("ps", "--all", "--quiet", "--filter", f"name={self.name}"), "")


def compose_program():
    """The words that start Docker's compose tool, or None."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) and subprocess.run([*words, "version"], capture_output=True).returncode == 0:
            return words
    return None


class Compose(Case):
    def test_up_and_down(self):
        compose = compose_program()
        if not compose:
            self.skipTest("SKIPPED: there is no docker compose")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = {**os.environ, "IMAGE": image("slim"), "MODELS": str(self.models()), "PORT": str(port)}
        command = [*compose, "--file", ROOT / "docker" / "compose.yaml", "--project-name", RUN]

        def run(*words):
            subprocess.run([*command, *words], env=env, check=True, capture_output=True, timeout=120)

        self.addCleanup(run, "down", "--timeout", "5")
        run("up", "--detach")

        def ready():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
                    return answer.status == 200
            except OSError:  # refused, or 502 while it starts
                return False

        wait_for(ready, 60, lambda: "it is not ready")


class Leftovers(unittest.TestCase):
    def test_containers_of_the_scripts_have_the_label_of_this_run(self):
        # The label is the image's; so what these tests leave behind is found at the end.
        self.assertIn(
            LABEL.split("=")[1], docker("image", "inspect", "--format", "{{json .Config.Labels}}", image("slim"))
        )


if __name__ == "__main__":
    unittest.main()
