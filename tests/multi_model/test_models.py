"""The main path of multi-model mode, with real TensorFlow behind the server. The Rust tests have the rest."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.harness.constants import CSV, INSTANCES, JSON_LINES, MODELS, TARGET_MODEL
from tests.multi_model.case import MultiModelCase

PREDICTIONS = {"predictions": [3.5, 4.0, 5.5]}
EXAMPLES = '{"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]}'
# Body, options of `invoke_model`, and the answer's value.
ANSWERS = [
    (INSTANCES, {}, PREDICTIONS),
    ("1.0\n2.0\n5.0\n", {"content_type": JSON_LINES}, PREDICTIONS),
    ("1.0\n2.0\n5.0\n", {"content_type": CSV}, PREDICTIONS),
    (INSTANCES, {"attributes": "tfs-model-version=123"}, PREDICTIONS),
    (INSTANCES, {"attributes": "tfs-model-version=124"}, PREDICTIONS),
    (EXAMPLES, {"attributes": "tfs-method=regress"}, {"results": [3.5, 4.0]}),
]


def add_script(folder):
    (folder / "code").mkdir()
    shutil.copy(Path(__file__).with_name("grpc_handler.py"), folder / "code" / "inference.py")


class ModelsCase(MultiModelCase):
    @classmethod
    def archive(cls, model_dir, name, model):
        """Puts a model where SageMaker puts it; its folder."""
        folder = model_dir / name / "model"
        folder.mkdir(parents=True)
        (folder / model).symlink_to(MODELS / model)
        return folder

    def check_loaded(self, name, answer):
        self.assertEqual(answer.status, 200, answer.text)
        self.assertTrue(answer.json()["success"].startswith(f"Successfully loaded model {name}, "))


class Models(ModelsCase):
    """Two models without handlers, loaded at the same time."""

    @classmethod
    def setUpClass(cls):
        folder = cls.folder()
        models = {"flowers": "demo", "half": "half_plus_three", "broken": "broken"}
        cls.urls = {name: cls.archive(folder, name, model) for name, model in models.items()}
        cls.server = cls.start(folder, models=3).wait_ready()
        with ThreadPoolExecutor(2) as threads:
            cls.loaded = list(threads.map(cls.load_by_name, ("flowers", "half")))

    @classmethod
    def load_by_name(cls, name):
        return cls.load(cls.server, name, cls.urls[name])

    def check_flowers(self):
        answer = self.invoke_model(self.server, "flowers", "5.1,3.5,1.4,0.2\n6.9,3.1,5.9,2.1\n", CSV)
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual([row["label"] for row in answer.json()["predictions"]], ["small", "large"])

    def check_half(self):
        self.check_json(self.invoke(self.server, INSTANCES, **{TARGET_MODEL: "half"}), PREDICTIONS)

    def test_loading(self):
        for name, answer in zip(("flowers", "half"), self.loaded):
            self.check_loaded(name, answer)
        self.check_flowers()
        self.check_half()

    def test_describe(self):
        status = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        versions = [{"version": version, **status} for version in ("124", "123")]
        expected = {"modelName": "half", "modelUrl": str(self.urls["half"]), "model_version_status": versions}
        self.check_json(self.server.request("GET", "/models/half"), expected)

    def test_answers(self):
        for body, options, expected in ANSWERS:
            with self.subTest(body, **options):
                self.check_json(self.invoke_model(self.server, "half", body, **options), expected)

    def test_errors_have_the_words_of_tensorflow_serving(self):
        answer = self.invoke_model(self.server, "half", INSTANCES, attributes="tfs-model-version=7")
        self.check_error(answer, 404, "Specific(half, 7)")
        answer = self.invoke_model(self.server, "half", '{"instances": ["one"]}')
        self.check_error(answer, 400, "is not of expected type: float")

    def test_tensorflow_servings_own_api(self):
        self.check_json(self.server.request("POST", "/tfs/v1/models/half:predict", INSTANCES), PREDICTIONS)

    def test_a_model_that_does_not_load(self):
        before = self.server.children()
        self.check_error(self.load_by_name("broken"), 500, "name: broken version: 1")
        self.assertEqual(self.server.request("GET", "/models/broken").status, 404)
        self.assertCountEqual(self.server.children(), before)
        self.check_half()

    def test_unloaded_and_loaded_again(self):
        before = self.server.children()
        answer = self.server.request("DELETE", "/models/flowers")
        self.check_json(answer, {"success": "Successfully unloaded model flowers."})
        # Its process has ended when the answer comes.
        self.assertEqual(len(self.server.children()), len(before) - 1)
        self.check_half()
        self.check_loaded("flowers", self.load_by_name("flowers"))
        self.check_flowers()


class Handlers(ModelsCase):
    def test_handlers_of_a_model_and_of_all_use_grpc(self):
        model_dir = self.folder()
        add_script(model_dir)
        half, own = (self.archive(model_dir, name, "half_plus_three") for name in ("half", "own"))
        add_script(own)
        server = self.start(model_dir, models=2).wait_ready()
        self.check_loaded("half", self.load(server, "half", half))
        # The second time the model takes the ports of the first.
        for _ in range(2):
            self.check_loaded("own", self.load(server, "own", own))
            for name, warm in (("half", None), ("own", [7.0])):
                answer = self.invoke_model(server, name, INSTANCES, attributes="tfs-model-version=124")
                path = f"/v1/models/{name}/versions/124:predict"
                self.check_json(answer, {"model": name, "path": path, "warm": warm, **PREDICTIONS})
            self.assertEqual(server.request("DELETE", "/models/own").status, 200)
        self.check_stops(server)
