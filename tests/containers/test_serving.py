"""Images serve: routes, models, large bodies and logs, through the end of a model server, in
multi-model mode, and with TensorFlow."""

import json

from tests.harness.constants import CSV, INSTANCES, JSON_LINES

from .case import ContainerCase, engine_or_skip

setUpModule = engine_or_skip

HANDLER = """
def input_handler(data, context):
    return data.read()

def output_handler(response, context):
    return context.model_name + " says " + response.text.split()[2], "text/plain"
"""


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
        self.assertEqual(answer.text, "3.5\n4.0\n5.5\n")
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


class MultiModel(ContainerCase):
    """As SageMaker uses it: models come and go in a volume, with and without handlers."""

    def serve_multi(self, flavor="slim"):
        self.archives = self.folder()
        env = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_SAFE_PORT_RANGE": "9000-9999"}
        return self.serve(flavor, self.archives, inside="/opt/ml/models", env=env)

    def load(self, container, name):
        body = json.dumps({"model_name": name, "url": f"/opt/ml/models/{name}/model"})
        return self.invoke(container, body, path="/models")

    def add(self, container, name, **code):
        """Puts a model where SageMaker puts it, and has it loaded."""
        self.models(parent=self.archives / name / "model", **code)
        answer = self.load(container, name)
        self.assertEqual(answer.status, 200, answer.text)

    def ask(self, container, name):
        return self.invoke(container, "1.0", path=f"/models/{name}/invoke")

    def test_load_list_invoke_unload(self):
        container = self.serve_multi()
        self.check_json(container.request("GET", "/models"), {"models": []})
        for name in ("one", "two"):
            self.add(container, name)
        listed = container.request("GET", "/models").json()["models"]
        self.assertEqual([model["modelName"] for model in listed], ["one", "two"])
        self.assertEqual(len(container.model_servers()), 2)
        for name in ("one", "two"):
            self.check_predictions(self.ask(container, name))
        self.assertEqual(container.request("DELETE", "/models/one").status, 200)
        self.assertEqual(self.ask(container, "one").status, 404)
        self.check_predictions(self.ask(container, "two"))
        self.assertEqual(len(container.model_servers()), 1)
        self.check_stops(container)

    def test_a_handler_of_one_model(self):
        container = self.serve_multi("python")
        self.add(container, "one", inference=HANDLER)
        self.add(container, "two")
        self.check(self.ask(container, "one"), "one says [3.5,", content_type="text/plain")
        self.check_predictions(self.ask(container, "two"))


class TensorFlow(ContainerCase):
    def test_predictions(self):
        models = self.tensorflow_models("half_plus_three")
        container = self.serve_tensorflow("python", models, {"SAGEMAKER_TFS_ENABLE_BATCHING": "true"})
        self.check_predictions(self.invoke(container, INSTANCES))
        self.check_predictions(self.invoke(container, "1.0\n2.0\n5.0\n", CSV))
        version = "tfs-model-name=half_plus_three,tfs-model-version=123"
        self.check_json(self.invoke(container, "10.0", attributes=version), {"predictions": [8.0]})
        self.assertEqual(self.invoke(container, '{"instances": ["x"]}').status, 400)
        self.check_stops(container)
