"""The slim image serves: every format, several model servers, batching, faults, logs, as other users."""

import json

from tests.harness.constants import CSV, INSTANCES, JSON, JSON_LINES

from .case import ContainerCase, engine_or_skip, image

setUpModule = engine_or_skip

# Content type, body, and what the model server gets.
FORMATS = (
    (JSON, '{"instances": [1.0, 2.0]}', '{"instances": [1.0, 2.0]}'),
    (JSON, "[[1.0, 2.0], [5.0]]", '{"instances": [[1.0, 2.0], [5.0]]}'),
    (JSON_LINES, "1.0\n2.0\n5.0\n", '{"instances": [1.0, 2.0, 5.0]}'),
    ("application/jsons", "[1.0]\n[2.0]\n", '{"instances": [[1.0], [2.0]]}'),
    (CSV, "1.0,.5\nNaN,x\n", '{"instances": [[1.0, 0.5], [NaN, "x"]]}'),
    ("application/x-image", b"\x89PNG", '{"instances": [{"b64": "iVBORw=="}]}'),
    ("image/jpeg", b"\xff\xd8", '{"instances": [{"b64": "/9g="}]}'),
)


class Serving(ContainerCase):
    def test_formats(self):
        container = self.serve(env={"FAKE_TFS_ANSWER": "echo"})
        for content_type, body, expected in FORMATS:
            with self.subTest(content_type):
                answer = self.invoke(container, body, content_type)
                self.assertEqual(answer.status, 200, answer.text)
                # As texts, because NaN is not equal to itself.
                self.assertEqual(repr(answer.json()), repr(json.loads(expected)))
        unsupported = {"error": "Unsupported Media Type: application/pdf"}
        self.check_json(self.invoke(container, "1.0", "application/pdf"), unsupported, 415)
        self.assertEqual(container.request("GET", "/nowhere").status, 404)
        # 100 MB of 1 GiB: twice that is more than the memory for bodies.
        body = b"[" + b"1.25," * 20_000_000 + b"1]"
        answer = self.invoke(container, body)
        self.assertEqual((answer.status, len(answer.body)), (200, len(body) + len(b'{"instances": []}')))
        self.assertFalse(container.state("OOMKilled"))

    def test_routes_models_and_logs(self):
        container = self.serve(env={"SAGEMAKER_TFS_NGINX_LOGLEVEL": "info"})
        ping = container.request("GET", "/ping")
        self.assertEqual((ping.status, ping.text), (200, ""))
        self.check_predictions(self.invoke(container, INSTANCES))
        version = "tfs-model-name=half_plus_three,tfs-model-version=123"
        self.check_predictions(self.invoke(container, "1.0", attributes=version))
        self.assertEqual(self.invoke(container, "1.0", attributes="tfs-model-name=other").status, 404)
        parameters = container.request("GET", "/execution-parameters").json()
        self.assertEqual(parameters["MaxConcurrentTransforms"], 8)
        self.assertIn("AVAILABLE", container.request("GET", "/tfs/v1/models/half_plus_three").text)
        answer = self.invoke(container, "1.0", accept=JSON_LINES)
        self.assertEqual(answer.text, '{    "predictions": [3.5, 4.0, 5.5    ]}')
        # Docker has a line moments after it was written.
        container.wait_for(lambda: container.logs().count('"POST /invocations" 200') == 3)
        for text in (
            "model half_plus_three, versions [123, 124], in /opt/ml/model/half_plus_three",
            "[tensorflow_model_server] 0: I fake/server.cc:451] Exporting HTTP/REST API",
            "model half_plus_three is AVAILABLE",
        ):
            self.assertIn(text, container.logs())

    def test_the_port_of_inference_pipelines(self):
        env = {"SAGEMAKER_BIND_TO_PORT": "8123", "SAGEMAKER_SAFE_PORT_RANGE": "20000-20999"}
        container = self.container(image("slim"), self.models(), env=env, options=["--publish", "127.0.0.1::8123"])
        container.port = container.published("8123/tcp")
        container.wait_ready()
        self.assertIn("--port=20000", container.model_server_command())
        self.assertIn("--rest_api_port=20001", container.model_server_command())
        self.check_predictions(self.invoke(container, "1.0"))

    def test_batch_transform_and_batching(self):
        env = {
            "SAGEMAKER_BATCH": "true",
            "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "100",
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": "20",
            "SAGEMAKER_TFS_ENABLE_BATCHING": "true",
            "SAGEMAKER_TFS_MAX_BATCH_SIZE": "24",
        }
        container = self.serve(env=env)
        expected = {"MaxConcurrentTransforms": 100, "MaxPayloadInMB": 20}
        self.check_json(container.request("GET", "/execution-parameters"), expected)
        command = container.model_server_command()
        self.assertIn("--rest_api_timeout_in_ms=600000", command)
        self.assertIn("--enable_batching=true", command)
        (file,) = [word.split("=", 1)[1] for word in command if word.startswith("--batching_parameters_file=")]
        self.assertIn("max_batch_size { value: 24 }", container.shell(f"cat {file}"))
        self.check_predictions(self.invoke(container, "1.0"))

    def test_any_user_without_capabilities(self):
        options = ["--user", "65534:65534", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        container = self.serve(options=options)
        self.check_predictions(self.invoke(container, "1.0"))
        self.assertEqual(container.shell("id -u"), "65534")


class Faults(ContainerCase):
    def test_a_killed_model_server_is_started_again_and_no_request_is_lost(self):
        container = self.serve()
        for _ in range(2):
            (old,) = container.model_servers()
            container.shell(f"kill -9 {old}")
            self.check_predictions(self.invoke(container, "1.0"))
            self.assertNotEqual(container.model_servers(), [old])
        container.wait_ready()
        self.assertIn("was terminated by signal 9", container.logs())

    def test_of_two_model_servers_the_other_serves_on(self):
        # A new one takes its time, so the other answers.
        env = {"SAGEMAKER_TFS_INSTANCE_COUNT": "2", "FAKE_TFS_START_DELAY_MS": "3000"}
        container = self.serve(env=env)
        container.wait_for(lambda: container.logs().count("is AVAILABLE") == 2)
        first, second = container.model_servers()
        container.shell(f"kill -9 {first}")
        for _ in range(20):
            self.check_predictions(self.invoke(container, "1.0"))
        self.assertEqual(container.request("GET", "/ping").status, 200)
        self.assertIn(second, container.model_servers())
        container.wait_for(lambda: container.logs().count("is AVAILABLE") == 3)
        self.assertEqual(len(container.model_servers()), 2)

    def test_a_model_server_that_cannot_start_ends_the_container_with_its_words(self):
        container = self.container(image("slim"), self.models(), env={"FAKE_TFS_START_EXIT": "255"})
        self.assertEqual(container.wait_ended(), 1)
        self.assertIn("TensorFlow Serving did not start", container.logs())
        self.assertIn("Failed to start server. Error: ", container.logs())
