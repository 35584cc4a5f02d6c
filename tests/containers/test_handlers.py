"""Python handlers in the default image: packages in `lib`, faults, and the end of a busy container."""

import json
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness import BUSY_STOP_SECONDS, PREDICTIONS, Case, engine_or_skip, wait_for

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


class Handlers(Case):
    def start_with(self, script, files=(), **options):
        models = self.models()
        for name, text in [("inference.py", script), *files]:
            path = models / "code" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self.start("python", models, **options).wait_ready()

    def test_a_pair_with_its_own_packages(self):
        files = [
            ("lib/helper/__init__.py", "def double(x): return 2 * x\n"),
            ("requirements.txt", "there-is-no-such-package==1\n"),  # with lib it is ignored
        ]
        container = self.start_with(PAIR, files, env={"FAKE_TFS_ANSWER": "echo"})
        answer = container.invoke("2.5", "text/plain")
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual(
            json.loads(answer.body),
            {
                "echo": {"instances": [5.0]},
                "helper": "/opt/ml/model/code/lib/helper/__init__.py",
                "python": "/usr/bin/python3",
            },
        )

    def test_a_worker_that_dies_is_started_again(self):
        container = self.start_with(SINGLE)
        self.assertEqual(container.invoke("die").status, 500)
        container.wait_ready()
        self.check(container.invoke("go"))

    def test_processes_that_a_handler_leaves_behind_are_reaped(self):
        container = self.start_with(SINGLE)
        for _ in range(5):
            self.check(container.invoke("orphan"))

        def strangers():
            return [process for process in container.processes().values() if process[1] == "Z" or process[0] == "sleep"]

        wait_for(lambda: not strangers(), 20, lambda: f"left over: {strangers()}")

    def test_a_busy_container_ends_in_time_and_answers_every_request(self):
        # The image has no gevent, without which calls come one at a time.
        threads = {"SAGEMAKER_GUNICORN_WORKER_CLASS": "gthread", "SAGEMAKER_GUNICORN_THREADS": "8"}
        container = self.start_with(SINGLE, env=threads)
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(container.invoke, "slow") for _ in range(8)]
            wait_for(lambda: container.logs().count("slow begins") == 8, 60, container.logs)
            seconds = container.stop()
            self.assertEqual([answer.result().text for answer in answers], [PREDICTIONS] * 8)
        self.assertLess(seconds, BUSY_STOP_SECONDS)
        self.assertEqual(container.exit_code(), 0, container.logs())

    def test_any_user(self):
        container = self.start_with(SINGLE, options=["--user", "65534:65534", "--cap-drop", "ALL"])
        self.check(container.invoke("go"))


if __name__ == "__main__":
    unittest.main()
