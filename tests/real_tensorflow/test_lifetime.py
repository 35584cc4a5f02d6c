"""Starts that fail, model servers that are killed, deadlines and the end, with TensorFlow behind the server."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from tests.harness.case import ServerCase
from tests.harness.client import wait_until
from tests.harness.constants import INSTANCES, PREDICTIONS
from tests.harness.processes import cpu_seconds

SLOW = '{"instances": [%s]}'


class Lifetime(ServerCase):
    def test_a_model_that_does_not_load_ends_the_start(self):
        first, *_, last = self.check_refused(self.start(self.model_dir("half_plus_three", "broken")))
        self.assertIn("TensorFlow Serving did not start: ", first)
        self.assertIn("exited with code 255", first)
        self.assertIn("Failed to start server. Error: ", last)
        self.assertIn("name: broken version: 1", last)

    def test_ping_says_that_the_server_starts_and_requests_wait_for_a_killed_model_server(self):
        server = self.start(self.model_dir("half_plus_three"))
        texts = []
        # TensorFlow takes longer to import than the second after which the first text comes.
        server.wait_ready(lambda _, text: texts.append(text))
        self.assertTrue(texts and all("instance 0: starting" in text for text in texts), texts)

        (child,) = server.children()
        os.kill(child, signal.SIGKILL)
        self.check(self.invoke(server, INSTANCES), PREDICTIONS)
        server.wait_ready()
        (other,) = server.children()
        self.assertNotEqual(child, other)
        self.assertIn("was terminated by signal 9", server.log())

    def test_a_request_past_its_deadline_gets_504_and_others_go_on(self):
        # The deadline is never below the handlers' limit, whose default is 30 s.
        limits = {"SAGEMAKER_GUNICORN_TIMEOUT_SECONDS": "2", "SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS": "2"}
        default = {"SAGEMAKER_TFS_DEFAULT_MODEL_NAME": "half_plus_three"}
        server = self.start(self.model_dir("half_plus_three", "slow"), env=limits | default).wait_ready()
        with ThreadPoolExecutor(1) as thread:
            begin = time.monotonic()
            late = thread.submit(self.invoke, server, SLOW % 8.0, attributes="tfs-model-name=slow")
            self.check(self.invoke(server, INSTANCES), PREDICTIONS)
            self.check_error(late.result(), 504)
            # The model itself would take 8 s.
            self.assertLess(time.monotonic() - begin, 7)

    def test_sigterm_lets_running_requests_finish(self):
        server = self.start(self.model_dir("slow")).wait_ready()
        (child,) = server.children()
        with ThreadPoolExecutor(3) as threads:
            before = cpu_seconds([child])
            answers = [threads.submit(self.invoke, server, SLOW % 2.5) for _ in range(3)]
            # The model works by spinning: the requests are under way, and have some time to go.
            wait_until(lambda: cpu_seconds([child]) - before > 0.5, "the model does not work")
            self.check_stops(server)
            for answer in answers:
                self.check_json(answer.result(), {"predictions": [2.5]})
