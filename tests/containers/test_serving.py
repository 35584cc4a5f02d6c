"""The slim image serves: routes, models, large bodies and logs, and through the end of a model server."""

from tests.harness.constants import INSTANCES, JSON_LINES

from .case import ContainerCase, engine_or_skip

setUpModule = engine_or_skip


class Serving(ContainerCase):
    def test_a_large_body(self):
        container = self.serve(env={"FAKE_TFS_ANSWER": "echo"})
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
        self.assertEqual(container.request("GET", "/nowhere").status, 404)
        answer = self.invoke(container, "1.0\n2.0\n5.0\n", JSON_LINES, accept=JSON_LINES)
        self.assertEqual(answer.text, '{    "predictions": [3.5, 4.0, 5.5    ]}')
        # Docker has a line moments after it was written.
        container.wait_for(lambda: container.logs().count('"POST /invocations" 200') == 3)
        for text in (
            "model half_plus_three, versions [123, 124], in /opt/ml/model/half_plus_three",
            "[tensorflow_model_server] 0: I fake/server.cc:451] Exporting HTTP/REST API",
            "model half_plus_three is AVAILABLE",
        ):
            self.assertIn(text, container.logs())

    def test_a_killed_model_server_is_started_again_and_no_request_is_lost(self):
        container = self.serve()
        for _ in range(2):
            (old,) = container.model_servers()
            container.shell(f"kill -9 {old}")
            self.check_predictions(self.invoke(container, "1.0"))
            self.assertNotEqual(container.model_servers(), [old])
        container.wait_ready()
        self.assertIn("was terminated by signal 9", container.logs())
