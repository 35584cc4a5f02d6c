"""REST predict: the refusals and their texts."""

import json
import unittest

from harness import ERROR, shared_server

FLOAT = "INVALID_ARGUMENT: JSON Value: %s Type: %s is not of expected type: float"


class Errors(unittest.TestCase):
    def check(self, call, body, text, status=400):
        """`text` is the error before it is escaped for the answer."""
        escaped = json.dumps(text, ensure_ascii=False)[1:-1]
        with self.subTest(body):
            self.assertEqual(shared_server().post(call, body), (status, ERROR % escaped))

    def refuse(self, body, text, call="half_plus_three:predict"):
        self.check(call, body, text)

    def test_no_json(self):
        for body, text in (
            ("", "The document is empty"),
            ("  \n", "The document is empty. at offset: 3"),
            ("abc", "Invalid value. at offset: 0"),
            ("nul", "Invalid value. at offset: 3"),
            ('{"instances": [1 2]}', "Missing a comma or ']' after an array element. at offset: 17"),
            ('{"instances": [1,]}', "Invalid value. at offset: 17"),
            ('{"instances" [1]}', "Missing a colon after a name of object member. at offset: 13"),
            ('{"instances": [1] "x": 1}', "Missing a comma or '}' after an object member. at offset: 18"),
            ("{1: 2}", "Missing a name for object member. at offset: 1"),
            ('{"instances": [1', "Missing a comma or ']' after an array element. at offset: 16"),
            ('{"instances": [1.]}', "Miss fraction part in number. at offset: 17"),
            ('{"instances": [1e]}', "Miss exponent in number. at offset: 17"),
            ('{"inst', "Missing a closing quotation mark in string. at offset: 6"),
            ('{"a\\x": 1}', "Invalid escape character in string. at offset: 3"),
            ('{"a\\uZZZZ": 1}', "Incorrect hex digit after \\u escape in string. at offset: 3"),
            ('{"a\\ud800": 1}', "The surrogate pair in string is invalid. at offset: 3"),
            ('{"a\n": 1}', "Invalid encoding in string. at offset: 3"),
        ):
            self.refuse(body, f"JSON Parse error: {text}")

    def test_not_a_request(self):
        self.refuse("[1.5]", "JSON Value: [1.5] Is not object")
        self.refuse("{}", "Missing 'inputs' or 'instances' key")
        self.refuse(
            '{"instances": [1], "inputs": [true]}',
            'JSON Value: {\n    "instances": [1],\n    "inputs": [true]\n} '
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        )
        self.refuse(
            '{"instances": 1}',
            "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array",
        )
        self.refuse(
            '{"instances": []}', "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"
        )
        self.refuse(
            '{"signature_name": null}',
            'JSON Value: {\n    "signature_name": null\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
        )

    def test_types(self):
        for value, kind in (
            ('"abc"', "String"),
            ("true", "true"),
            ("null", "Null"),
            ('{"b64": "YQ=="}', "Object"),
        ):
            shown = '{\n    "b64": "YQ=="\n}' if kind == "Object" else value
            text = FLOAT % (shown, kind.title() if kind == "true" else kind)
            self.refuse(
                f'{{"instances": [{value}]}}',
                f"Failed to process element: 0 of 'instances' list. Error: {text}",
            )
            self.refuse(f'{{"inputs": [1, {value}]}}', text.removeprefix("INVALID_ARGUMENT: "))
        good = {"f": 1, "i": 1, "b": True, "s": "x"}
        for key, value, wanted in (
            ("i", 1.0, "int64"),
            ("i", 2**63, "int64"),
            ("i", True, "int64"),
            ("i", "1", "int64"),
            ("b", 1, "bool"),
            ("b", "true", "bool"),
            ("s", 1, "string"),
            ("s", False, "string"),
            ("f", "1", "float"),
        ):
            kind = {bool: str(value), str: "String"}.get(type(value), "Number")
            self.refuse(
                json.dumps({"instances": [good, {**good, key: value}]}),
                f"Failed to process element: 1 key: {key} of 'instances' list. Error: INVALID_ARGUMENT: "
                f"JSON Value: {json.dumps(value)} Type: {kind} is not of expected type: {wanted}",
                call="types:predict",
            )

    def test_precision(self):
        text = "Cannot convert JSON value: %s to float without loss of precision."
        self.refuse('{"inputs": [16777216]}', text % "16777216")
        self.refuse('{"inputs": [1e39]}', text % "1e39")
        self.refuse('{"inputs": [1, NaN, 1e39]}', text % "1e39")

    def test_numbers_too_big(self):
        for number in ("1" * 400, "1" * 5000, "1e400, x"):
            status, text = shared_server().post("half_plus_three:predict", f'{{"inputs": [{number}]}}')
            self.assertEqual(status, 400)
            self.assertIn("Number too big to be stored in double.", text)

    def test_base64(self):
        self.refuse(
            '{"signature_name": "strings", "inputs": [{"b64": "A"}]}',
            "Unable to base64 decode",
            "types:predict",
        )
        self.refuse(
            '{"signature_name": "strings", "inputs": [{"b64": 1}]}',
            'JSON Value: {\n    "b64": 1\n} not formatted correctly for base64 data',
            "types:predict",
        )

    def test_shapes(self):
        where = "Failed to process element: %d of 'instances' list. Error: INVALID_ARGUMENT: "
        for body, text in (
            ('{"instances": [[1], [1, 2]]}', where % 1 + "Expecting tensor size: 1 but got: 2"),
            ('{"instances": [[[1, 2]], [[1], [2]]]}', where % 1 + "Expecting shape [1,2] but got: [2,1]"),
            ('{"instances": [1, [2]]}', where % 1 + "Expecting shape [] but got: [1]"),
            (
                '{"instances": [[[1], [2, 3]]]}',
                where % 0 + "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
            ),
            ('{"instances": [[1, [2]]]}', where % 0 + "Encountered list at unexpected level: 1 expected < 1"),
            (
                '{"inputs": [[1], 2]}',
                "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
            ),
        ):
            self.refuse(body, text)

    def test_names(self):
        call = "types:predict"
        self.refuse(
            '{"instances": [1]}',
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map",
            call,
        )
        self.refuse(
            '{"inputs": [1]}',
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map",
            call,
        )
        self.refuse('{"inputs": {"f": 1}}', "Missing named input: b in 'inputs' object.", call)
        self.refuse(
            '{"instances": [{"f": 1}]}',
            "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"f\": 1\n} "
            "keys must be equal to: b,f,i,s",
            call,
        )
        self.refuse(
            '{"instances": [{"z": 1}]}',
            "Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: JSON object: "
            "does not have named input: z",
            call,
        )
        self.refuse('{"instances": [{"x": 1}, 2]}', "Expecting object but got list at item 1 of input list")
        self.refuse(
            '{"instances": [2, {"x": 1}]}', "Expecting value/list but got object at item 1 of input list"
        )

    def test_signatures(self):
        self.refuse(
            '{"signature_name": "x", "instances": [1]}',
            'Serving signature name: "x" not found in signature def',
        )

    def test_outputs_that_are_no_rows(self):
        body = '{"signature_name": "%s", "instances": %s}'
        self.refuse(
            body % ("sums", "[[1, 2]]"), "Tensor name: total has no shape information ", "types:predict"
        )

    def test_models(self):
        for call, text in (
            ("x", "Servable not found for request: Latest(x)"),
            ("x/versions/5", "Servable not found for request: Specific(x, 5)"),
            ("half_plus_three/versions/5", "Servable not found for request: Specific(half_plus_three, 5)"),
        ):
            self.check(f"{call}:predict", '{"instances": [1]}', text, 404)
        self.refuse('{"instances": [1]}', "Unrecognized servable version label: x", "demo/labels/x:predict")
        number = "9" * 30
        self.refuse(
            "{}", f"Failed to convert version: {number} to numeric.", f"demo/versions/{number}:predict"
        )

    def test_the_model_fails(self):
        status, text = shared_server().post("demo:predict", '{"inputs": [[1, 2, 3]]}')
        self.assertEqual(status, 400)
        self.assertIn("Incompatible shapes: [1,3] vs. [4]", text)
        status, text = shared_server().post("image:predict", '{"instances": [{"b64": "AAAA"}]}')
        self.assertEqual(status, 400)
        self.assertIn("Unknown image file format", text)

    def test_the_model_takes_too_long(self):
        self.check("slow:predict", '{"instances": [30]}', "Timed out waiting for notification", 504)
