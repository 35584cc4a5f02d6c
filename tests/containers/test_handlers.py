"""Python handlers in the default image: packages in `lib`, faults, and the end of a busy container."""

from concurrent.futures import ThreadPoolExecutor

from .case import BUSY_STOP_SECONDS, ContainerCase, engine_or_skip

setUpModule = engine_or_skip

PAIR = """
import helper
import json
import sys
import requests

def input_handler(data, context):
    return json.dumps({"instances": [helper.double(float(data.read()))]})

def output_handler(response, context):
    body = {"echo": response.json(), "helper": helper.__file__, "python": sys.executable}
    return json.dumps(body), "application/json"
"""

SINGLE = """
import os, signal, subprocess, sys, time
import requests

def handler(data, context):
    word = data.read().decode()
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "orphan":
        subprocess.Popen([sys.executable, "-c", "import subprocess; subprocess.Popen(['sleep', '0.3'])"]).wait()
    if word == "slow":
        print("slow begins")
        time.sleep(4)
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
        self.check_json(
            self.invoke(container, "2.5", "text/plain"),
            {
                "echo": {"instances": [5.0]},
                "helper": "/opt/ml/model/code/lib/helper/__init__.py",
                "python": "/usr/bin/python3",
            },
        )

    def test_a_worker_that_dies_is_started_again(self):
        container = self.single()
        self.assertEqual(self.invoke(container, "die").status, 500)
        container.wait_ready()
        self.check_predictions(self.invoke(container, "go"))

    def test_processes_that_a_handler_leaves_behind_are_reaped(self):
        container = self.single()
        for _ in range(5):
            self.check_predictions(self.invoke(container, "orphan"))
        container.wait_for(lambda: not container.strangers("sagemaker-tfs", "sagemaker-tfs-p", "tensorflow_mode"))

    def test_a_busy_container_ends_in_time_and_answers_every_request(self):
        # The image has no gevent, without which calls come one at a time.
        threads = {"SAGEMAKER_GUNICORN_WORKER_CLASS": "gthread", "SAGEMAKER_GUNICORN_THREADS": "8"}
        container = self.single(env=threads)
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(self.invoke, container, "slow") for _ in range(8)]
            container.wait_for(lambda: container.logs().count("slow begins") == 8)
            self.check_stops(container, BUSY_STOP_SECONDS)
        for answer in answers:
            self.check_predictions(answer.result())

    def test_any_user(self):
        container = self.single(options=["--user", "65534:65534", "--cap-drop", "ALL"])
        self.check_predictions(self.invoke(container, "go"))
