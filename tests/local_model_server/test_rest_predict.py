"""REST predict: both forms, all types, and the exact bytes of the answers."""

import base64
import json
import math
import struct
import unittest
import zlib

from harness import shared_server


def png(width, height, brightness):
    """A grey picture, written out by hand."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = (b"\0" + bytes([brightness]) * width) * height
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


class Layout(unittest.TestCase):
    """Answers byte for byte."""

    def check(self, call, body, expected):
        status, text = shared_server().post(call, body)
        self.assertEqual(status, 200, text)
        self.assertEqual(text, expected)

    def test_row_of_scalars(self):
        self.check(
            "half_plus_three:predict",
            '{"instances": [1.0, 2.0, 5.0]}',
            '{\n    "predictions": [3.5, 4.0, 5.5\n    ]\n}',
        )

    def test_row_of_lists(self):
        self.check(
            "half_plus_three:predict",
            '{"instances": [[1.0, 2.0], [5.0, 6.0]]}',
            '{\n    "predictions": [[3.5, 4.0], [5.5, 6.0]\n    ]\n}',
        )

    def test_column_of_scalars(self):
        self.check(
            "half_plus_three:predict",
            '{"inputs": [1.0, 2.0]}',
            '{\n    "outputs": [\n        3.5,\n        4.0\n    ]\n}',
        )

    def test_column_of_lists_and_named_input(self):
        self.check(
            "half_plus_three:predict",
            '{"inputs": {"x": [[1.0], [2.0]]}}',
            '{\n    "outputs": [\n        [\n            3.5\n        ],\n'
            "        [\n            4.0\n        ]\n    ]\n}",
        )

    def test_column_of_one_scalar(self):
        self.check("half_plus_three:predict", '{"inputs": 1}', '{\n    "outputs": 3.5\n}')

    def test_empty_lists(self):
        self.check("half_plus_three:predict", '{"inputs": []}', '{\n    "outputs": []\n}')
        self.check(
            "half_plus_three:predict", '{"instances": [[], []]}', '{\n    "predictions": [[], []\n    ]\n}'
        )

    def test_several_outputs(self):
        one = {"f": 1, "i": 2, "b": True, "s": "a"}
        two = {"f": 0.5, "i": -3, "b": False, "s": b64(b"\x00\xff")}
        expected = """\
{
    "predictions": [
        {
            "half": 0.5,
            "next": 3,
            "not": false,
            "pair": [1.0, -1.0],
            "text": "a",
            "text_bytes": {
                "b64": "YQ=="
            }
        },
        {
            "half": 0.25,
            "next": -2,
            "not": true,
            "pair": [0.5, -0.5],
            "text": "\\u0000\udcff",
            "text_bytes": {
                "b64": "AP8="
            }
        }
    ]
}"""
        self.check("types:predict", {"instances": [one, two]}, expected)

    def test_several_outputs_in_columns(self):
        body = {"signature_name": "numbers", "inputs": {"double": [[1]], "int32": [1, 2], "uint8": [3]}}
        expected = """\
{
    "outputs": {
        "double": [
            [
                1.0
            ]
        ],
        "int32": [
            1,
            2
        ],
        "uint8": [
            3
        ]
    }
}"""
        self.check("types:predict", body, expected)

    def test_bytes_in_lists(self):
        body = {"signature_name": "strings", "instances": [["a"], ["b"]]}
        expected = """\
{
    "predictions": [[{
                "b64": "YQ=="
            }], [{
                "b64": "Yg=="
            }]
    ]
}"""
        self.check("types:predict", body, expected)
        body = {"signature_name": "strings", "inputs": ["a"]}
        expected = '{\n    "outputs": [\n        {\n            "b64": "YQ=="\n        }\n    ]\n}'
        self.check("types:predict", body, expected)

    def test_numbers(self):
        # Six digits if they give the same float32 back, else nine; always a point or an exponent.
        values = (
            "[0.2, 0.333333333333, 1e20, 16777215, 1e-10, -0.0, 1e7, 123456.7, NaN, -Infinity, Inf, -Inf]"
        )
        wanted = (
            "0.2, 0.333333343, 1e+20, 16777215.0, 1e-10, -0.0, 1e+07, 123456.703, NaN, "
            "-Infinity, Infinity, -Infinity"
        )
        self.check(
            "types:predict",
            f'{{"signature_name": "echo", "instances": {values}}}',
            f'{{\n    "predictions": [{wanted}\n    ]\n}}',
        )

    def test_doubles(self):
        inputs = '{"double": [0.1, 0.33333333333333333], "int32": 1, "uint8": 1}'
        body = f'{{"signature_name": "numbers", "inputs": {inputs}}}'
        answer = shared_server().post("types:predict", body)[1]
        self.assertIn('"double": [\n            0.1,\n            0.33333333333333331\n        ]', answer)


class Values(unittest.TestCase):
    def predict(self, model, body):
        return shared_server().predict(model, body)

    def test_versions_and_labels(self):
        for model in ("half_plus_three/versions/123", "half_plus_three/labels/stable", "HALF_PLUS_THREE"):
            with self.subTest(model):
                if model.isupper():
                    self.assertEqual(shared_server().post(f"{model}:predict", {"instances": [1]})[0], 404)
                else:
                    self.assertEqual(self.predict(model, {"instances": [1]}), {"predictions": [3.5]})

    def test_paths_ignore_case(self):
        status, text = shared_server().request(
            "POST", "/V1/Models/demo:PREDICT", '{"inputs": [[1, 2, 3, 4]]}'
        )
        self.assertEqual(status, 200, text)

    def test_signature_name(self):
        body = {"signature_name": "serving_default", "instances": [1]}
        self.assertEqual(self.predict("half_plus_three", body), {"predictions": [3.5]})
        self.assertEqual(
            self.predict("half_plus_three", {**body, "signature_name": ""}), {"predictions": [3.5]}
        )

    def test_unknown_shape_takes_any_rank(self):
        for value in (1.0, [1.0], [[[1.0, 2.0]], [[3.0, 4.0]]]):
            with self.subTest(value):
                answer = self.predict("types", {"signature_name": "any_shape", "inputs": value})
                self.assertEqual(json.dumps(answer["outputs"]), json.dumps(plus_one(value)))

    def test_base64_input(self):
        for value in ({"b64": "AP8="}, {"b64": "AP8"}):  # padding may be missing
            answer = self.predict("types", {"signature_name": "strings", "inputs": value})
            self.assertEqual(answer, {"outputs": {"b64": "AP8="}})

    def test_strings_with_escapes(self):
        body = r'{"signature_name": "strings", "inputs": ["\u00e4\ud83d\ude00\n\/"]}'
        self.assertEqual(self.predict("types", body), {"outputs": [b64("ä😀\n/".encode())]})

    def test_bytes_that_are_no_utf8_pass(self):
        body = b'{"signature_name": "strings", "inputs": ["\xff"]}'
        self.assertEqual(self.predict("types", body), {"outputs": [b64(b"\xff")]})

    def test_eight_bit_numbers_are_cut(self):
        body = {"signature_name": "numbers", "inputs": {"double": 1, "int32": 1, "uint8": 300}}
        self.assertEqual(self.predict("types", body)["outputs"]["uint8"], 44)

    def test_large_integers_are_exact(self):
        body = {"instances": [{"f": 1, "i": 2**53 + 1, "b": True, "s": ""}]}
        self.assertEqual(self.predict("types", body)["predictions"][0]["next"], 2**53 + 2)

    def test_what_follows_the_first_value_is_ignored(self):
        for rest in ("\n{}", " trailing", "\0"):
            self.assertEqual(
                self.predict("half_plus_three", '\ufeff {"instances": [1]}' + rest), {"predictions": [3.5]}
            )

    def test_demo(self):
        flowers = [[5.0, 3.4, 1.5, 0.2], [5.9, 2.8, 4.3, 1.3], [6.6, 3.0, 5.6, 2.0]]
        answer = self.predict("demo", {"instances": flowers})["predictions"]
        self.assertEqual([flower["label"] for flower in answer], ["small", "middle", "large"])
        for flower in answer:
            self.assertTrue(math.isclose(sum(flower["probabilities"]), 1, rel_tol=1e-5))

    def test_image(self):
        pictures = [b64(png(3, 2, 128)), b64(png(5, 4, 10))]
        expected = [{"mean": 128.0, "shape": [2, 3, 3]}, {"mean": 10.0, "shape": [4, 5, 3]}]
        self.assertEqual(self.predict("image", {"instances": pictures}), {"predictions": expected})

    def test_large_request(self):
        rows = [[float(i), 0.5, -1.25] for i in range(50_000)]
        answer = self.predict("half_plus_three", {"instances": rows})["predictions"]
        self.assertEqual(answer[49_999], [49_999 / 2 + 3, 3.25, 2.375])


def plus_one(value):
    return [plus_one(item) for item in value] if isinstance(value, list) else value + 1
