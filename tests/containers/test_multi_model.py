"""Multi-model mode as SageMaker uses it: models come and go in a volume, with and without handlers."""

import json
import unittest

from harness import Case, engine_or_skip, wait_for

setUpModule = engine_or_skip

HANDLER = """
def input_handler(data, context):
    return data.read()

def output_handler(response, context):
    return context.model_name + " says " + response.text.split()[2], "text/plain"
"""


class MultiModel(Case):
    def start_multi(self, flavor, **options):
        self.archives = self.folder()
        env = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_SAFE_PORT_RANGE": "9000-9999"}
        return self.start(flavor, self.archives, inside="/opt/ml/models", env=env, **options).wait_ready()

    def load(self, container, name, script=None):
        """Puts a model where SageMaker puts it, and has it loaded."""
        folder = self.archives / name / "model"
        self.models("half_plus_three", parent=folder)
        if script:
            (folder / "code").mkdir()
            (folder / "code" / "inference.py").write_text(script)
        body = json.dumps({"model_name": name, "url": f"/opt/ml/models/{name}/model"})
        return container.invoke(body, path="/models")

    def test_load_list_invoke_unload(self):
        container = self.start_multi("slim")
        self.assertEqual(json.loads(container.request("GET", "/models").body), {"models": []})
        for name in ("one", "two"):
            self.assertEqual(self.load(container, name).status, 200)
        again = container.invoke('{"model_name": "one", "url": "/opt/ml/models/one/model"}', path="/models")
        self.assertEqual((again.status, json.loads(again.body)), (409, {"error": "Model one is already loaded."}))
        listed = json.loads(container.request("GET", "/models").body)["models"]
        self.assertEqual([model["modelName"] for model in listed], ["one", "two"])
        for name in ("one", "two"):
            self.check(container.invoke("1.0", path=f"/models/{name}/invoke"))
        self.assertEqual(len(container.model_servers()), 2)
        self.assertEqual(container.request("DELETE", "/models/one").status, 200)
        self.assertEqual(container.invoke("1.0", path="/models/one/invoke").status, 404)
        self.check(container.invoke("1.0", path="/models/two/invoke"))
        self.assertEqual(len(container.model_servers()), 1)
        self.assertLess(container.stop(), 15)
        self.assertEqual(container.exit_code(), 0)

    def test_a_handler_of_one_model(self):
        container = self.start_multi("python")
        answer = self.load(container, "one", HANDLER)
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual(self.load(container, "two").status, 200)
        self.check(container.invoke("1.0", path="/models/one/invoke"), "one says [3.5,")
        self.check(container.invoke("1.0", path="/models/two/invoke"))

    def test_a_killed_model_server_costs_its_model_only(self):
        container = self.start_multi("slim")
        for name in ("one", "two"):
            self.assertEqual(self.load(container, name).status, 200)
        first, _ = container.model_servers()
        container.shell(f"kill -9 {first}")
        for name in ("one", "two"):
            self.check(container.invoke("1.0", path=f"/models/{name}/invoke"))
        wait_for(lambda: len(container.model_servers()) == 2, 30, container.logs)

    def test_a_model_that_is_not_there(self):
        container = self.start_multi("slim")
        answer = container.invoke('{"model_name": "x", "url": "/opt/ml/models/x/model"}', path="/models")
        self.assertEqual(answer.status, 404)
        self.assertIn("Could not find valid base path", answer.text)


if __name__ == "__main__":
    unittest.main()
