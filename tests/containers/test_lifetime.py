"""Starts that are refused, the end of a busy container, and the duties of process 1."""

import json
from concurrent.futures import ThreadPoolExecutor

from .case import BUSY_STOP_SECONDS, KILL_SECONDS, ContainerCase, engine_or_skip, image

setUpModule = engine_or_skip


class Start(ContainerCase):
    def check_refusal(self, *parts, code=1, **options):
        """The container ends with this exit code, and says why in one line, with these parts."""
        container = self.container(image("slim"), **options)
        self.assertEqual(container.wait_ended(), code)
        # Lines of the log begin with the time.
        (line,) = [line for line in container.logs().splitlines() if not line.startswith("20")]
        for part in parts:
            self.assertIn(part, line)

    def test_without_a_model_it_says_so_in_one_sentence(self):
        no_model = "sagemaker-tfs: no model found in /opt/ml/model: "
        for command in (["serve"], []):
            self.check_refusal(no_model, "Expected: ", "saved_model.pb", command=command)
        self.check_refusal(no_model, models=self.folder())

    def test_the_slim_image_refuses_a_handler(self):
        models = self.models(inference="def handler(data, context): pass\n")
        self.check_refusal("/opt/ml/model/code/inference.py", "use an image with Python", models=models)

    def test_wrong_settings_and_commands(self):
        wrong = {"SAGEMAKER_MULTI_MODEL": "yes"}
        self.check_refusal("SAGEMAKER_MULTI_MODEL", code=2, models=self.models(), env=wrong)
        self.check_refusal("train", code=2, command=["train"])


class End(ContainerCase):
    def test_a_busy_one_answers_every_request_and_ends_in_time_although_its_model_server_ignores_the_signal(self):
        container = self.serve(env={"FAKE_TFS_IGNORE_SIGTERM": "1"})
        body = json.dumps({"instances": [1.0], "fake": {"delay_ms": 4000}})
        with ThreadPoolExecutor(24) as pool:
            answers = [pool.submit(self.invoke, container, body) for _ in range(24)]
            container.wait_for(lambda: container.in_flight() == 24)
            self.check_stops(container, BUSY_STOP_SECONDS)
        for answer in answers:
            self.check_predictions(answer.result())

    def test_a_request_that_never_ends_does_not_keep_it(self):
        container = self.serve()
        body = json.dumps({"instances": [1.0], "fake": {"hang": True}})
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.invoke, container, body)
            container.wait_for(lambda: container.in_flight() == 1)
            self.check_stops(container, KILL_SECONDS)
        # Refused or cut off: the client must not wait for ever.
        self.assertTrue(answer.exception() or answer.result().status >= 500)

    def test_while_it_starts(self):
        container = self.container(image("slim"), self.models(), env={"FAKE_TFS_START_DELAY_MS": "600000"})
        container.wait_for(lambda: "started tensorflow_model_server" in container.logs())
        self.check_stops(container)


class ProcessOne(ContainerCase):
    def test_it_is_the_server_itself_and_leaves_no_zombies(self):
        container = self.serve()
        expected = ("sagemaker-tfs", "tensorflow_mode")
        self.assertEqual(container.processes()[1][0], "sagemaker-tfs")
        self.assertEqual(sorted(name for name, _ in container.processes().values()), sorted(expected))
        # Children of a shell that has ended are process 1's, as are those of a killed model server.
        container.shell("for i in 1 2 3 4 5; do (sleep 0.2; exec sh -c 'sleep 0.2 & exit') & done")
        container.shell(f"kill -9 {container.model_servers()[0]}")
        container.wait_ready()
        container.wait_for(lambda: not container.strangers(*expected))
        self.check_stops(container)
