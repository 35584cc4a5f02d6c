"""The slim image serves: every format, several model servers, batching, faults, logs, as other users."""

import json
import unittest

from harness import ATTRIBUTES, Case, engine_or_skip, wait_for

setUpModule = engine_or_skip


class Formats(Case):
    """What the model server gets, which answers with its request."""

    def setUp(self):
        self.container = self.start(env={"FAKE_TFS_ANSWER": "echo"}).wait_ready()

    def test_every_format(self):
        for content_type, body, expected in [
            ("application/json", '{"instances": [1.0, 2.0]}', '{"instances": [1.0, 2.0]}'),
            ("application/json", "[[1.0, 2.0], [5.0]]", '{"instances": [[1.0, 2.0], [5.0]]}'),
            ("application/jsonlines", "1.0\n2.0\n5.0\n", '{"instances": [1.0, 2.0, 5.0]}'),
            ("application/jsons", "[1.0]\n[2.0]\n", '{"instances": [[1.0], [2.0]]}'),
            ("text/csv", "1.0,.5\nNaN,x\n", '{"instances": [[1.0, 0.5], [NaN, "x"]]}'),
            ("application/x-image", b"\x89PNG", '{"instances": [{"b64": "iVBORw=="}]}'),
            ("image/jpeg", b"\xff\xd8", '{"instances": [{"b64": "/9g="}]}'),
        ]:
            with self.subTest(content_type):
                answer = self.container.invoke(body, content_type)
                self.assertEqual(answer.status, 200, answer.text)
                self.assertEqual(repr(json.loads(answer.body)), repr(json.loads(expected)))

    def test_what_is_refused(self):
        answer = self.container.invoke("1.0", "application/pdf")
        self.assertEqual(
            (answer.status, json.loads(answer.body)), (415, {"error": "Unsupported Media Type: application/pdf"})
        )
        self.assertEqual(self.container.request("GET", "/nowhere").status, 404)

    def test_a_body_larger_than_what_is_left_of_the_memory_for_two(self):
        body = b"[" + b"1.25," * 20_000_000 + b"1]"  # 100 MB, and 1 GiB in all
        answer = self.container.invoke(body)
        self.assertEqual((answer.status, len(answer.body)), (200, len(body) + len(b'{"instances": []}')))
        self.assertEqual(self.container.state("{{.State.OOMKilled}}"), "false")


class Serving(Case):
    def test_routes_and_models(self):
        container = self.start().wait_ready()
        self.check(container.request("GET", "/ping"), "")
        self.check(container.invoke('{"instances": [1.0, 2.0, 5.0]}'))
        self.check(container.invoke("1.0", **{ATTRIBUTES: "tfs-model-name=half_plus_three,tfs-model-version=123"}))
        self.assertEqual(container.invoke("1.0", **{ATTRIBUTES: "tfs-model-name=other"}).status, 404)
        parameters = container.request("GET", "/execution-parameters")
        self.assertEqual(json.loads(parameters.body)["MaxConcurrentTransforms"], 8)
        self.assertIn("AVAILABLE", container.request("GET", "/tfs/v1/models/half_plus_three").text)
        answer = container.invoke("1.0", Accept="application/jsonlines")
        self.assertEqual(answer.text, '{    "predictions": [3.5, 4.0, 5.5    ]}')

    def test_the_port_of_inference_pipelines(self):
        env = {"SAGEMAKER_BIND_TO_PORT": "8123", "SAGEMAKER_SAFE_PORT_RANGE": "20000-20999"}
        container = self.start(env=env, options=["--publish", "127.0.0.1::8123"])
        container.port = int(json.loads(container.state("{{json .NetworkSettings.Ports}}"))["8123/tcp"][0]["HostPort"])
        container.wait_ready()
        self.assertIn("--port=20000", container.model_server_command())
        self.assertIn("--rest_api_port=20001", container.model_server_command())
        self.check(container.invoke("1.0"))

    def test_batch_transform(self):
        env = {
            "SAGEMAKER_BATCH": "true",
            "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "100",
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": "20",
        }
        container = self.start(env=env).wait_ready()
        parameters = json.loads(container.request("GET", "/execution-parameters").body)
        self.assertEqual(parameters, {"MaxConcurrentTransforms": 100, "MaxPayloadInMB": 20})
        self.assertIn("--rest_api_timeout_in_ms=600000", container.model_server_command())

    def test_batching(self):
        env = {"SAGEMAKER_TFS_ENABLE_BATCHING": "true", "SAGEMAKER_TFS_MAX_BATCH_SIZE": "24"}
        container = self.start(env=env).wait_ready()
        command = container.model_server_command()
        self.assertIn("--enable_batching=true", command)
        (file,) = [word.split("=", 1)[1] for word in command if word.startswith("--batching_parameters_file=")]
        self.assertIn("max_batch_size { value: 24 }", container.shell(f"cat {file}"))
        self.check(container.invoke("1.0"))

    def test_any_user_without_capabilities(self):
        options = ["--user", "65534:65534", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        container = self.start(options=options).wait_ready()
        self.check(container.invoke("1.0"))
        self.assertEqual(container.shell("id -u"), "65534")

    def test_logs(self):
        container = self.start(env={"SAGEMAKER_TFS_NGINX_LOGLEVEL": "info"}).wait_ready()
        container.invoke("1.0")
        # Docker has a line moments after it was written.
        wait_for(lambda: '"POST /invocations" 200' in container.logs(), 10, container.logs)
        for text in (
            "model half_plus_three, versions [123, 124], in /opt/ml/model/half_plus_three",
            "[tensorflow_model_server] 0: I fake/server.cc:451] Exporting HTTP/REST API",
            "model half_plus_three is AVAILABLE",
        ):
            self.assertIn(text, container.logs())


class Faults(Case):
    def kill(self, container, number):
        container.shell(f"kill -9 {number}")

    def test_a_killed_model_server_is_started_again_and_no_request_is_lost(self):
        container = self.start().wait_ready()
        for _ in range(2):
            (old,) = container.model_servers()
            self.kill(container, old)
            self.check(container.invoke("1.0"))
            self.assertNotEqual(container.model_servers(), [old])
        container.wait_ready()
        self.assertIn("was terminated by signal 9", container.logs())

    def test_of_two_model_servers_the_other_serves_on(self):
        # A new one takes its time, so what answers is the other.
        env = {"SAGEMAKER_TFS_INSTANCE_COUNT": "2", "FAKE_TFS_START_DELAY_MS": "3000"}
        container = self.start(env=env).wait_ready()
        wait_for(lambda: container.logs().count("is AVAILABLE") == 2, 60, container.logs)
        first, second = container.model_servers()
        self.kill(container, first)
        for _ in range(20):
            self.check(container.invoke("1.0"))
        self.assertEqual(container.request("GET", "/ping").status, 200)
        self.assertIn(second, container.model_servers())
        wait_for(lambda: container.logs().count("is AVAILABLE") == 3, 60, container.logs)
        self.assertEqual(len(container.model_servers()), 2)

    def test_a_model_server_that_cannot_start_ends_the_container_with_its_words(self):
        container = self.start(env={"FAKE_TFS_START_EXIT": "255"})
        self.assertEqual(container.wait_ended(), 1)
        self.assertIn("TensorFlow Serving did not start", container.logs())
        self.assertIn("Failed to start server. Error: ", container.logs())


if __name__ == "__main__":
    unittest.main()
