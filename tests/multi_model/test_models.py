"""The main path of multi-model mode, with real TensorFlow behind the server."""

from concurrent.futures import ThreadPoolExecutor

from tests.harness.constants import CSV, INSTANCES, JSON, JSON_LINES, TARGET_MODEL
from tests.multi_model.case import MultiModelCase

PREDICTIONS = {"predictions": [3.5, 4.0, 5.5]}
FLOWERS = "5.1,3.5,1.4,0.2\n6.9,3.1,5.9,2.1\n"
EXAMPLES = '{"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]}'
ABSENT = {"error": "Model absent is not loaded yet."}


def available(version):
    return {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


class Models(MultiModelCase):
    """Two models without handlers, loaded at the same time."""

    @classmethod
    def setUpClass(cls):
        folder = cls.folder()
        models = {"flowers": "demo", "half": "half_plus_three", "broken": "broken"}
        cls.urls = {name: cls.archive(folder, name, model) for name, model in models.items()}
        cls.server = cls.start(folder, models=3).wait_ready()
        cls.empty = cls.server.request("GET", "/models")
        with ThreadPoolExecutor(2) as threads:
            cls.loaded = list(threads.map(cls.load_by_name, ("flowers", "half")))

    @classmethod
    def load_by_name(cls, name):
        return cls.load(cls.server, name, cls.urls[name])

    def check_flowers(self, answer):
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual([row["label"] for row in answer.json()["predictions"]], ["small", "large"])

    def check_half_serves(self):
        self.check_json(self.invoke_model(self.server, "half", INSTANCES), PREDICTIONS)

    def test_loading(self):
        self.check_json(self.empty, {"models": []})
        for name, answer in zip(("flowers", "half"), self.loaded):
            self.assertEqual(answer.status, 200, answer.text)
            self.assertTrue(answer.json()["success"].startswith(f"Successfully loaded model {name}, "))

    def test_list(self):
        models = [{"modelName": name, "modelUrl": self.urls[name]} for name in ("flowers", "half")]
        self.check_json(self.server.request("GET", "/models"), {"models": models})
        first = self.server.request("GET", "/models?limit=1")
        token = first.json()["nextPageToken"]
        self.check_json(first, {"models": models[:1], "nextPageToken": token})
        second = self.server.request("GET", f"/models?limit=1&next_page_token={token}")
        self.check_json(second, {"models": models[1:]})

    def test_describe(self):
        answer = self.server.request("GET", "/models/half")
        self.assertEqual(answer.status, 200, answer.text)
        model = answer.json()
        self.assertEqual((model["modelName"], model["modelUrl"]), ("half", self.urls["half"]))
        self.assertCountEqual(model["model_version_status"], [available("124"), available("123")])

    def test_ping(self):
        self.check(self.server.request("GET", "/ping"), "", content_type=None)

    def test_invoke(self):
        for content_type, body in ((JSON, INSTANCES), (JSON_LINES, "1.0\n2.0\n5.0\n"), (CSV, "1.0\n2.0\n5.0\n")):
            with self.subTest(content_type):
                self.check_json(self.invoke_model(self.server, "half", body, content_type), PREDICTIONS)
        self.check_flowers(self.invoke_model(self.server, "flowers", FLOWERS, CSV))
        one_line = '{    "predictions": [3.5, 4.0, 5.5    ]}'
        self.check(self.invoke_model(self.server, "half", INSTANCES, accept=JSON), one_line)

    def test_versions_and_methods(self):
        for version in ("123", "124"):
            attributes = f"tfs-model-version={version}"
            self.check_json(self.invoke_model(self.server, "half", INSTANCES, attributes=attributes), PREDICTIONS)
        answer = self.invoke_model(self.server, "half", INSTANCES, attributes="tfs-model-version=7")
        self.check_error(answer, 404, "Specific(half, 7)")
        answer = self.invoke_model(self.server, "half", EXAMPLES, attributes="tfs-method=regress")
        self.check_json(answer, {"results": [3.5, 4.0]})

    def test_invocations_name_the_model_in_a_header(self):
        self.check_json(self.invoke(self.server, INSTANCES, **{TARGET_MODEL: "half"}), PREDICTIONS)
        self.check_flowers(self.invoke(self.server, FLOWERS, CSV, **{TARGET_MODEL: "flowers"}))
        answer = self.invoke(self.server, INSTANCES, attributes="tfs-model-name=half,tfs-model-version=123")
        self.check_json(answer, PREDICTIONS)
        self.check_json(self.invoke(self.server, INSTANCES, **{TARGET_MODEL: "absent"}), ABSENT, 404)
        self.check_error(self.invoke(self.server, INSTANCES), 400, "names no model")

    def test_errors_of_the_model_pass(self):
        answer = self.invoke_model(self.server, "half", '{"instances": ["one"]}')
        self.check_error(answer, 400, "is not of expected type: float")

    def test_tensorflow_servings_own_api(self):
        answer = self.server.request("POST", "/tfs/v1/models/half:predict", INSTANCES)
        self.check_json(answer, PREDICTIONS)
        self.assertEqual(self.server.request("GET", "/tfs/v1/models/absent").status, 404)

    def test_a_model_that_is_not_loaded(self):
        for method, path, body in (
            ("GET", "/models/absent", None),
            ("DELETE", "/models/absent", None),
            ("POST", "/models/absent/invoke", "{}"),
        ):
            self.check_json(self.server.request(method, path, body), ABSENT, 404)

    def test_loads_that_are_refused(self):
        self.check_json(self.load_by_name("half"), {"error": "Model half is already loaded."}, 409)
        nowhere = f"{self.urls['half']}/nowhere"
        text = f"Could not find valid base path {nowhere} for servable new"
        self.check_json(self.load(self.server, "new", nowhere), {"error": text}, 404)
        for name, url in (("../half", self.urls["half"]), ("new", "half"), ("new", "/proc/self"), ("new", "/x/../y")):
            self.check_error(self.load(self.server, name, url), 400)
        for body in ("", "no JSON", "[]", "{}", '{"model_name": "new"}'):
            self.check_error(self.server.request("POST", "/models", body), 400)

    def test_a_model_that_does_not_load(self):
        before = self.server.children()
        self.check_error(self.load_by_name("broken"), 500, "name: broken version: 1")
        self.assertEqual(self.server.request("GET", "/models/broken").status, 404)
        self.assertCountEqual(self.server.children(), before)
        self.check_half_serves()

    def test_unloaded_and_loaded_again(self):
        before = self.server.children()
        answer = self.server.request("DELETE", "/models/flowers")
        self.check_json(answer, {"success": "Successfully unloaded model flowers."})
        # Its process has ended when the answer comes.
        self.assertEqual(len(self.server.children()), len(before) - 1)
        error = {"error": "Model flowers is not loaded yet."}
        self.check_json(self.invoke_model(self.server, "flowers", FLOWERS, CSV), error, 404)
        self.check_json(self.server.request("DELETE", "/models/flowers"), error, 404)
        self.check_half_serves()
        self.assertEqual(self.load_by_name("flowers").status, 200)
        self.check_flowers(self.invoke_model(self.server, "flowers", FLOWERS, CSV))


class Handlers(MultiModelCase):
    """A model with a handler of its own, and one with the handler for all models."""

    def load_archive(self, server, model_dir, name, *what):
        answer = self.load(server, name, self.archive(model_dir, name, *what))
        self.assertEqual(answer.status, 200, answer.text)

    def test_handlers_of_models_and_of_all(self):
        model_dir = self.folder()
        self.copy_script(model_dir, "universal")
        server = self.start(model_dir, models=2).wait_ready()
        self.load_archive(server, model_dir, "flowers", "demo", "labels")
        self.load_archive(server, model_dir, "half", "half_plus_three")
        # Each script imports a module `words` of its own.
        answer = self.invoke_model(server, "flowers", FLOWERS, CSV)
        self.check(answer, "flowers\nsmall\nlarge", content_type="text/plain")
        answer = self.invoke_model(server, "half", INSTANCES, attributes="tfs-model-version=124")
        self.assertEqual(answer.status, 200, answer.text)
        rest_port = int(answer.json()["rest_port"])
        expected = {
            "script": "universal",
            "model": "half",
            "version": "124",
            "rest_port": str(rest_port),
            "grpc_port": str(rest_port - 1),
            "has_channel": True,
            "answer": PREDICTIONS,
        }
        self.check_json(answer, expected)
        # An error in the handler of one model does not concern the others.
        answer = self.invoke_model(server, "flowers", "no number", CSV)
        self.check_json(answer, {"error": "could not convert string to float: 'no number'"}, 500)

        # A model's workers end with it; the worker for all models stays.
        before = len(server.children())
        self.assertEqual(server.request("DELETE", "/models/flowers").status, 200)
        self.assertEqual(len(server.children()), before - 2)
        self.assertEqual(self.invoke_model(server, "half", INSTANCES).status, 200)

        # The next model takes its ports, and asks TensorFlow Serving over gRPC already while its script loads.
        self.load_archive(server, model_dir, "calls", "half_plus_three", "grpc_channel")
        answer = self.invoke_model(server, "calls", INSTANCES)
        self.check_json(answer, {"model": "calls", "warm": [7.0], **PREDICTIONS})
        self.check_stops(server)
