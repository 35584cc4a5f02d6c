"""The main path of multi-model mode, with real TensorFlow behind it."""

import json
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness import ATTRIBUTES, CSV, JSON, JSON_LINES, TARGET, MultiModelCase

INSTANCES = '{"instances": [1.0, 2.0, 5.0]}'
PREDICTIONS = {"predictions": [3.5, 4.0, 5.5]}
FLOWERS = "5.1,3.5,1.4,0.2\n6.9,3.1,5.9,2.1\n"


def available(version):
    return {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


class Models(MultiModelCase):
    """Two models without handlers, loaded at the same time."""

    @classmethod
    def setUpClass(cls):
        folder = cls.folder()
        cls.urls = {
            "flowers": cls.archive(folder, "flowers", "demo"),
            "half": cls.archive(folder, "half", "half_plus_three"),
            "broken": cls.archive(folder, "broken", "broken"),
        }
        cls.server = cls.start_multi(folder, models=3).wait_ready()
        cls.empty = cls.server.request("GET", "/models")
        with ThreadPoolExecutor(2) as threads:
            cls.loaded = list(threads.map(cls.load_by_name, ("flowers", "half")))

    @classmethod
    def load_by_name(cls, name):
        return cls.load(cls.server, name, cls.urls[name])

    def invocations(self, body, content_type=JSON, **headers):
        return self.server.request("POST", "/invocations", body, {"Content-Type": content_type, **headers})

    def labels(self, answer):
        self.assertEqual(answer.status, 200, answer.text)
        return [row["label"] for row in json.loads(answer.body)["predictions"]]

    def test_the_list_is_empty_at_first(self):
        self.check_json(self.empty, {"models": []})

    def test_what_loading_says(self):
        for name, answer in zip(("flowers", "half"), self.loaded):
            self.assertEqual(answer.status, 200, answer.text)
            self.assertTrue(json.loads(answer.body)["success"].startswith(f"Successfully loaded model {name}, "))

    def test_list(self):
        models = [{"modelName": name, "modelUrl": self.urls[name]} for name in ("flowers", "half")]
        self.check_json(self.server.request("GET", "/models"), {"models": models})
        first = self.server.request("GET", "/models?limit=1")
        self.check_json(first, {"models": models[:1], "nextPageToken": json.loads(first.body)["nextPageToken"]})
        token = json.loads(first.body)["nextPageToken"]
        second = self.server.request("GET", f"/models?limit=1&next_page_token={token}")
        self.check_json(second, {"models": models[1:]})

    def test_describe(self):
        answer = self.server.request("GET", "/models/half")
        status = [available("124"), available("123")]
        self.assertEqual(answer.status, 200, answer.text)
        told = json.loads(answer.body)
        self.assertEqual((told["modelName"], told["modelUrl"]), ("half", self.urls["half"]))
        self.assertCountEqual(told["model_version_status"], status)

    def test_ping(self):
        answer = self.server.request("GET", "/ping")
        self.assertEqual((answer.status, answer.body), (200, b""))

    def test_json(self):
        self.check_json(self.invoke_model(self.server, "half", INSTANCES), PREDICTIONS)
        self.check_json(self.invoke_model(self.server, "half", "1.0\n2.0\n5.0\n", JSON_LINES), PREDICTIONS)

    def test_csv(self):
        self.check_json(self.invoke_model(self.server, "half", "1.0\n2.0\n5.0\n", CSV), PREDICTIONS)
        self.assertEqual(self.labels(self.invoke_model(self.server, "flowers", FLOWERS, CSV)), ["small", "large"])

    def test_accept(self):
        answer = self.invoke_model(self.server, "half", INSTANCES, Accept=JSON)
        self.assertEqual((answer.status, answer.text), (200, '{    "predictions": [3.5, 4.0, 5.5    ]}'))

    def test_versions_and_methods(self):
        for version in ("123", "124"):
            attributes = {ATTRIBUTES: f"tfs-model-version={version}"}
            self.check_json(self.invoke_model(self.server, "half", INSTANCES, **attributes), PREDICTIONS)
        answer = self.invoke_model(self.server, "half", INSTANCES, **{ATTRIBUTES: "tfs-model-version=7"})
        self.assertEqual(answer.status, 404, answer.text)
        self.assertIn("Specific(half, 7)", json.loads(answer.body)["error"])
        body = '{"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]}'
        answer = self.invoke_model(self.server, "half", body, **{ATTRIBUTES: "tfs-method=regress"})
        self.check_json(answer, {"results": [3.5, 4.0]})

    def test_invocations_name_the_model_in_a_header(self):
        self.check_json(self.invocations(INSTANCES, **{TARGET: "half"}), PREDICTIONS)
        self.assertEqual(self.labels(self.invocations(FLOWERS, CSV, **{TARGET: "flowers"})), ["small", "large"])
        attributes = {ATTRIBUTES: "tfs-model-name=half,tfs-model-version=123"}
        self.check_json(self.invocations(INSTANCES, **attributes), PREDICTIONS)
        self.check_error(
            self.invocations(INSTANCES, **{TARGET: "absent"}), 404, "Model absent is not loaded yet."
        )
        answer = self.invocations(INSTANCES)
        self.assertEqual(answer.status, 400, answer.text)
        self.assertIn("names no model", json.loads(answer.body)["error"])

    def test_errors_of_the_model_pass(self):
        answer = self.invoke_model(self.server, "half", '{"instances": ["one"]}')
        self.assertEqual(answer.status, 400, answer.text)
        self.assertIn("is not of expected type: float", json.loads(answer.body)["error"])

    def test_tensorflow_servings_own_api(self):
        answer = self.server.request("POST", "/tfs/v1/models/half:predict", INSTANCES)
        self.check_json(answer, PREDICTIONS)
        self.assertEqual(self.server.request("GET", "/tfs/v1/models/absent").status, 404)

    def test_what_is_not_loaded(self):
        calls = (("GET", "/models/absent"), ("DELETE", "/models/absent"), ("POST", "/models/absent/invoke"))
        for method, path in calls:
            answer = self.server.request(method, path, "{}" if method == "POST" else None)
            self.check_error(answer, 404, "Model absent is not loaded yet.")

    def test_loads_that_are_refused(self):
        self.check_error(self.load(self.server, "half", self.urls["half"]), 409, "Model half is already loaded.")
        nowhere = f"{self.urls['half']}/nowhere"
        self.check_error(
            self.load(self.server, "new", nowhere), 404, f"Could not find valid base path {nowhere} for servable new"
        )
        for name, url in (("../half", self.urls["half"]), ("new", "half"), ("new", "/proc/self"), ("new", "/x/../y")):
            answer = self.load(self.server, name, url)
            self.assertEqual(answer.status, 400, answer.text)
        for body in ("", "no JSON", "[]", "{}", '{"model_name": "new"}'):
            answer = self.server.request("POST", "/models", body)
            self.assertEqual(answer.status, 400, answer.text)

    def test_a_model_that_does_not_load(self):
        before = self.server.children()
        answer = self.load_by_name("broken")
        self.assertEqual(answer.status, 500, answer.text)
        self.assertIn("name: broken version: 1", json.loads(answer.body)["error"])
        self.assertEqual(self.server.request("GET", "/models/broken").status, 404)
        self.assertCountEqual(self.server.children(), before)
        self.check_json(self.invoke_model(self.server, "half", INSTANCES), PREDICTIONS)

    def test_unloaded_and_loaded_again(self):
        before = self.server.children()
        answer = self.server.request("DELETE", "/models/flowers")
        self.check_json(answer, {"success": "Successfully unloaded model flowers."})
        # What it had is free when the answer comes.
        self.assertEqual(len(self.server.children()), len(before) - 1)
        self.check_error(
            self.invoke_model(self.server, "flowers", FLOWERS, CSV), 404, "Model flowers is not loaded yet."
        )
        self.check_error(self.server.request("DELETE", "/models/flowers"), 404, "Model flowers is not loaded yet.")
        self.check_json(self.invoke_model(self.server, "half", INSTANCES), PREDICTIONS)
        self.assertEqual(self.load_by_name("flowers").status, 200)
        self.assertEqual(self.labels(self.invoke_model(self.server, "flowers", FLOWERS, CSV)), ["small", "large"])


class Handlers(MultiModelCase):
    """A model with a handler of its own, beside one with the handler for all models."""

    @classmethod
    def setUpClass(cls):
        cls.models = cls.folder()
        cls.script(cls.models, "universal")
        cls.server = cls.start_multi(cls.models).wait_ready()

    def load_archive(self, name, *what):
        answer = self.load(self.server, name, self.archive(self.models, name, *what))
        self.assertEqual(answer.status, 200, answer.text)

    def test_handlers_of_models_and_of_all(self):
        server = self.server
        self.load_archive("flowers", "demo", "labels")
        self.load_archive("half", "half_plus_three")
        # Both scripts import a module `words`, each its own.
        answer = self.invoke_model(server, "flowers", FLOWERS, CSV)
        self.assertEqual((answer.status, answer.text), (200, "flowers\nsmall\nlarge"))
        self.assertEqual(answer.headers["Content-Type"], "text/plain")
        answer = self.invoke_model(server, "half", INSTANCES, **{ATTRIBUTES: "tfs-model-version=124"})
        self.assertEqual(answer.status, 200, answer.text)
        told = json.loads(answer.body)
        rest_port = int(told.pop("rest_port"))
        self.assertEqual(int(told.pop("grpc_port")), rest_port - 1)
        expected = {"script": "universal", "model": "half", "version": "124", "has_channel": True}
        self.assertEqual(told, {**expected, "answer": PREDICTIONS})
        # A mistake in one handler is that model's only.
        answer = self.invoke_model(server, "flowers", "no number", CSV)
        self.check_error(answer, 500, "could not convert string to float: 'no number'")

        # Its workers go with a model; the one for all stays.
        before = len(server.children())
        self.assertEqual(server.request("DELETE", "/models/flowers").status, 200)
        self.assertEqual(len(server.children()), before - 2)
        self.assertEqual(self.invoke_model(server, "half", INSTANCES).status, 200)

        # Another takes its ports, and asks its model over gRPC, also while its script is loaded.
        self.load_archive("calls", "half_plus_three", "grpc_channel")
        answer = self.invoke_model(server, "calls", INSTANCES)
        self.check_json(answer, {"model": "calls", "warm": [7.0], **PREDICTIONS})
        self.ends_well(server)


if __name__ == "__main__":
    unittest.main()
