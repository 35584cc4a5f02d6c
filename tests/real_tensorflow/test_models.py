"""Models of other kinds: one trained here, pictures, and one in a folder with an unusual name."""

import json
import struct
import unittest
import zlib

from harness import CSV, JSON, MODELS, PREDICTIONS, Case


def png(width, height, red, green, blue):
    """A picture of one colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes((red, green, blue)) * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class SeveralModels(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.start(cls.model_dir("demo", "half_plus_three", "image")).wait_ready()

    def predictions(self, body, content_type, attributes):
        answer = self.invoke(self.server, body, content_type, attributes)
        self.assertEqual(answer.status, 200, answer.text)
        return json.loads(answer.body)["predictions"]

    def test_the_trained_model_is_the_first_by_name(self):
        csv = "5.0,3.4,1.5,0.2\n5.9,2.8,4.3,1.3\n6.9,3.1,6.0,2.2\n"
        rows = self.predictions(csv, CSV, None)
        self.assertEqual([row["label"] for row in rows], ["small", "middle", "large"])
        for row in rows:
            self.assertAlmostEqual(sum(row["probabilities"]), 1, places=5)

    def test_another_model_is_named(self):
        self.check(
            self.server, '{"instances": [1.0, 2.0, 5.0]}', PREDICTIONS, attributes="tfs-model-name=half_plus_three"
        )

    def test_pictures(self):
        for content_type in ("image/png", "application/x-image", "IMAGE/PNG; x=y"):
            rows = self.predictions(png(3, 2, 30, 60, 90), content_type, "tfs-model-name=image")
            self.assertEqual(rows, [{"shape": [2, 3, 3], "mean": 60.0}])

    def test_a_broken_picture(self):
        error = self.error_text(self.server, b"no picture", content_type="image/png", attributes="tfs-model-name=image")
        self.assertIn("Unknown image file format", error)

    def test_tensorflow_servings_own_api(self):
        answer = self.server.request("GET", "/tfs/v1/models/demo/metadata")
        self.assertEqual(answer.status, 200, answer.text)
        inputs = json.loads(answer.body)["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
        self.assertEqual(list(inputs), ["measures"])
        answer = self.server.request(
            "POST", "/tfs/v1/models/half_plus_three:predict", '{"instances": [1.0, 2.0, 5.0]}', {"Accept": JSON}
        )
        self.assertEqual((answer.status, answer.text), (200, PREDICTIONS))


class Layouts(Case):
    def predict_with(self, model_dir):
        with self.subTest(model_dir):
            self.check(self.start(model_dir).wait_ready(), '{"instances": [1.0, 2.0, 5.0]}', PREDICTIONS)

    def test_a_folder_with_quotes_spaces_and_other_scripts(self):
        # No backslash: TensorFlow itself finds no checkpoint below a folder with one in its name.
        parent = self.folder() / "it's \"a\" dürrer 模型\tordner" / "export"
        parent.mkdir(parents=True)
        (parent / "half_plus_three").symlink_to(MODELS / "half_plus_three")
        self.predict_with(parent.parent)

    def test_a_saved_model_without_a_version_folder(self):
        parent = self.folder() / "lone"
        parent.symlink_to(MODELS / "half_plus_three" / "123")
        self.predict_with(parent.parent)


if __name__ == "__main__":
    unittest.main()
