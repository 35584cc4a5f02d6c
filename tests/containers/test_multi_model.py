"""Multi-model mode as SageMaker uses it: models come and go in a volume, with and without handlers."""

import json

from .case import ContainerCase, engine_or_skip

setUpModule = engine_or_skip

HANDLER = """
def input_handler(data, context):
    return data.read()

def output_handler(response, context):
    return context.model_name + " says " + response.text.split()[2], "text/plain"
"""


class MultiModel(ContainerCase):
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
