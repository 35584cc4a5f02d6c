"""Models of other kinds: one trained here, pictures, and one in a folder with an unusual name."""

import io

from PIL import Image

from tests.harness.case import ServerCase
from tests.harness.constants import CSV, INSTANCES, JSON, MODELS, PREDICTIONS


class SeveralModels(ServerCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.start(cls.model_dir("demo", "half_plus_three", "image")).wait_ready()

    def predictions(self, body, content_type, attributes=None):
        answer = self.invoke(self.server, body, content_type, attributes)
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json()["predictions"]

    def test_the_trained_model_is_the_first_by_name(self):
        rows = self.predictions("5.0,3.4,1.5,0.2\n5.9,2.8,4.3,1.3\n6.9,3.1,6.0,2.2\n", CSV)
        self.assertEqual([row["label"] for row in rows], ["small", "middle", "large"])
        for row in rows:
            self.assertAlmostEqual(sum(row["probabilities"]), 1, places=5)

    def test_attributes_name_another_model(self):
        answer = self.invoke(self.server, INSTANCES, attributes="tfs-model-name=half_plus_three")
        self.check(answer, PREDICTIONS)

    def test_pictures(self):
        picture = io.BytesIO()
        Image.new("RGB", (3, 2), (30, 60, 90)).save(picture, "PNG")
        for content_type in ("image/png", "application/x-image", "IMAGE/PNG; x=y"):
            rows = self.predictions(picture.getvalue(), content_type, "tfs-model-name=image")
            self.assertEqual(rows, [{"shape": [2, 3, 3], "mean": 60.0}])

    def test_a_broken_picture(self):
        answer = self.invoke(self.server, b"no picture", "image/png", "tfs-model-name=image")
        self.check_error(answer, 400, "Unknown image file format")

    def test_tensorflow_servings_own_api(self):
        answer = self.server.request("GET", "/tfs/v1/models/demo/metadata")
        self.assertEqual(answer.status, 200, answer.text)
        inputs = answer.json()["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
        self.assertEqual(list(inputs), ["measures"])
        path = "/tfs/v1/models/half_plus_three:predict"
        self.check(self.server.request("POST", path, INSTANCES, {"Accept": JSON}), PREDICTIONS)


class Layouts(ServerCase):
    def test_models_and_lone_saved_models_in_folders_with_unusual_names(self):
        named = (("export/half_plus_three", "half_plus_three"), ("lone", "half_plus_three/123"))
        odd = (("mon [modèle\\]", "half_plus_three"), ("_bert+head", "half_plus_three/123"))
        # Characters that TensorFlow takes for a pattern.
        pattern = ("a[1] {b} *? \\c/half_plus_three", "half_plus_three")
        for place, target in (*named, *odd, pattern):
            with self.subTest(place):
                model_dir = self.folder() / 'it\'s "a" dürrer 模型\tordner'
                link = model_dir / place
                link.parent.mkdir(parents=True)
                link.symlink_to(MODELS / target)
                self.check(self.invoke(self.start(model_dir).wait_ready(), INSTANCES), PREDICTIONS)
