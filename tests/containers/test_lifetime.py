"""Start without a model, the end of a busy container, and what process 1 owes to others."""

import json
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness import BUSY_STOP_SECONDS, KILL_SECONDS, Case, Container, engine_or_skip, image, wait_for

setUpModule = engine_or_skip


class Start(Case):
    def refused(self, code=1, **options):
        """The lines of a container that does not start, but for its log."""
        container = Container(image("slim"), **options)
        self.addCleanup(container.remove)
        self.assertEqual(container.wait_ended(), code)
        return [line for line in container.logs().splitlines() if not line.startswith("20")]

    def test_without_a_model_it_says_so_in_one_sentence(self):
        for command in (["serve"], []):
            (line,) = self.refused(command=command)
            self.assertRegex(line, r"^sagemaker-tfs: no model found in /opt/ml/model: .*Expected: .*saved_model\.pb")

    def test_with_an_empty_volume_too(self):
        (line,) = self.refused(models=self.folder())
        self.assertIn("no model found in /opt/ml/model", line)

    def test_the_slim_image_refuses_a_handler(self):
        models = self.models()
        (models / "code").mkdir()
        (models / "code" / "inference.py").write_text("def handler(data, context): pass\n")
        (line,) = self.refused(models=models)
        self.assertIn("/opt/ml/model/code/inference.py", line)
        self.assertIn("use an image with Python", line)

    def test_wrong_settings_and_commands(self):
        (line,) = self.refused(code=2, models=self.models(), env={"SAGEMAKER_MULTI_MODEL": "yes"})
        self.assertIn("SAGEMAKER_MULTI_MODEL", line)
        (line,) = self.refused(code=2, command=["train"])
        self.assertIn("train", line)


class End(Case):
    def test_a_busy_container_ends_in_time_and_answers_every_request(self):
        container = self.start().wait_ready()
        body = json.dumps({"instances": [1.0], "fake": {"delay_ms": 4000}})
        with ThreadPoolExecutor(24) as pool:
            answers = [pool.submit(container.invoke, body) for _ in range(24)]
            wait_for(lambda: container.fake_stats()["in_flight"] == 24, 60, container.logs)
            seconds = container.stop()
            for answer in answers:
                self.check(answer.result())
        self.assertLess(seconds, BUSY_STOP_SECONDS)
        self.assertEqual(container.exit_code(), 0, container.logs())

    def test_a_request_that_never_ends_does_not_keep_it(self):
        container = self.start().wait_ready()
        body = json.dumps({"instances": [1.0], "fake": {"hang": True}})
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(container.invoke, body)
            wait_for(lambda: container.fake_stats()["in_flight"] == 1, 60, container.logs)
            seconds = container.stop()
            # Refused or cut off: the client must not wait for ever.
            self.assertTrue(answer.exception() or answer.result().status >= 500)
        self.assertLess(seconds, KILL_SECONDS)
        # 137 would be SIGKILL's.
        self.assertEqual(container.exit_code(), 0, container.logs())

    def test_an_idle_one_ends_at_once_although_its_model_server_ignores_the_signal(self):
        container = self.start(env={"FAKE_TFS_IGNORE_SIGTERM": "1"}).wait_ready()
        self.assertLess(container.stop(), 15)
        self.assertEqual(container.exit_code(), 0, container.logs())

    def test_while_it_starts(self):
        container = self.start(env={"FAKE_TFS_START_DELAY_MS": "600000"})
        wait_for(lambda: "started tensorflow_model_server" in container.logs(), 60, container.logs)
        self.assertLess(container.stop(), 15)
        self.assertEqual(container.exit_code(), 0, container.logs())


class ProcessOne(Case):
    def test_it_is_the_server_itself(self):
        processes = self.start().wait_ready().processes()
        self.assertEqual(processes[1][0], "sagemaker-tfs")
        self.assertEqual(sorted(name for name, _, _ in processes.values()), ["sagemaker-tfs", "tensorflow_mode"])

    def test_it_leaves_no_zombies(self):
        container = self.start().wait_ready()
        # Children of a shell that has ended are process 1's, as are those of a killed model server.
        container.shell("for i in 1 2 3 4 5; do (sleep 0.2; exec sh -c 'sleep 0.2 & exit') & done")
        container.shell(f"kill -9 {container.model_servers()[0]}")
        container.wait_ready()

        def strangers():
            return {
                number: process
                for number, process in container.processes().items()
                if process[1] == "Z" or process[0] not in ("sagemaker-tfs", "tensorflow_mode")
            }

        wait_for(lambda: not strangers(), 20, lambda: f"left over: {strangers()}")
        self.assertLess(container.stop(), 15)
        self.assertEqual(container.exit_code(), 0)


if __name__ == "__main__":
    unittest.main()
