"""Starts that fail, model servers that fall, deadlines and the end, with TensorFlow behind it."""

import json
import os
import signal
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness import PREDICTIONS, Case

SLOW = '{"instances": [%s]}'


class Start(Case):
    def test_a_model_that_does_not_load_ends_the_start(self):
        server = self.start(self.model_dir("half_plus_three", "broken"))
        self.assertEqual(server.wait(120), 1)
        reason = [line for line in server.log().splitlines() if line.startswith("sagemaker-tfs: ")]
        self.assertIn("TensorFlow Serving did not start: ", reason[0])
        self.assertIn("exited with code 255", reason[0])
        self.assertIn("Failed to start server. Error: ", reason[-1])
        self.assertIn("name: broken version: 1", reason[-1])
        self.assertEqual(server.children(), [])

    def test_ping_tells_that_it_is_starting(self):
        server = self.start(self.model_dir("half_plus_three"))
        texts = []
        server.wait_ready(lambda _, text: texts.append(text))
        # The first text is heard after a second, and TensorFlow takes longer than that.
        self.assertTrue(texts and all("instance 0: starting" in text for text in texts), texts)


class Lifetime(Case):
    def test_a_fallen_model_server_is_started_again_and_requests_wait_for_it(self):
        server = self.start(self.model_dir("half_plus_three")).wait_ready()
        (child,) = server.children()
        os.kill(child, signal.SIGKILL)
        self.check(server, '{"instances": [1.0, 2.0, 5.0]}', PREDICTIONS)
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
            late = thread.submit(self.error_text, server, SLOW % 8.0, status=504, attributes="tfs-model-name=slow")
            self.check(server, '{"instances": [1.0, 2.0, 5.0]}', PREDICTIONS)
            self.assertTrue(late.result())
            self.assertLess(time.monotonic() - begin, 7)

    def test_sigterm_lets_running_requests_finish(self):
        server = self.start(self.model_dir("slow")).wait_ready()
        with ThreadPoolExecutor(3) as threads:
            answers = [threads.submit(self.invoke, server, SLOW % 2.5) for _ in range(3)]
            time.sleep(1)  # they are under way, and have some time to go
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(40), 0)
            for answer in answers:
                answer = answer.result()
                self.assertEqual((answer.status, json.loads(answer.body)), (200, {"predictions": [2.5]}))
        self.assertEqual(server.children(), [])


if __name__ == "__main__":
    unittest.main()
