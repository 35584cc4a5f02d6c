"""The rest of the REST API: classify, regress, status, metadata, and paths that mean nothing."""

import json
import unittest

from harness import ERROR, shared_server

REGRESS = '{"signature_name": "regress_x_to_y", %s}'


class Examples(unittest.TestCase):
    def check(self, call, body, expected, status=200):
        with self.subTest(body):
            self.assertEqual(shared_server().post(call, body), (status, expected))

    def refuse(self, features, text):
        self.check("half_plus_three:regress", REGRESS % features, ERROR % text, 400)

    def test_regress(self):
        call = "half_plus_three:regress"
        expected = '{\n    "results": [3.5, 4.0]\n}'
        self.check(call, REGRESS % '"examples": [{"x": 1.0}, {"x": [2.0]}]', expected)
        self.check(call, REGRESS % '"context": {"x": 1.0}, "examples": [{}, {"x": 2.0}]', expected)
        body = '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}'
        self.check(call, body, expected)

    def test_classify(self):
        body = '{"signature_name": "classify_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]}'
        self.check("half_plus_three:classify", body, '{\n    "results": [[["", 3.5]], [["", 4.0]]\n    ]\n}')

    def test_predict_on_serialized_examples(self):
        body = (
            '{"signature_name": "regress_x_to_y", "instances": [{"b64": ""}, ""]}'  # features have defaults
        )
        self.check("half_plus_three:predict", body, '{\n    "predictions": [[3.0], [3.0]\n    ]\n}')

    def test_kinds_of_features(self):
        status, text = shared_server().post("half_plus_three:regress", REGRESS % '"examples": [{"x": 1}]')
        self.assertEqual(status, 400)
        self.assertIn("Data type: int64 but expected type: float", text)
        for value in ('"a"', '{"b64": "YQ=="}', "true"):
            status, text = shared_server().post(
                "half_plus_three:regress", REGRESS % f'"examples": [{{"x": {value}}}]'
            )
            self.assertEqual(status, 400)
            self.assertIn("but expected type: float", text)

    def test_errors(self):
        feature = "Feature: x has element with unexpected JSON type: "
        self.refuse('"examples": [{"x": null}]', feature + "Null")
        self.refuse('"examples": [{"x": [[1]]}]', feature + "Array")
        self.refuse('"examples": [{"x": {}}]', feature + "Object")
        self.refuse(
            '"examples": [{"x": [1.0, "a"]}]', "Unexpected element type in feature: x expecting type: float"
        )
        self.refuse(
            '"examples": [{"x": 9223372036854775808}]',
            "Feature: x has uint64 element. Only int64 is supported.",
        )
        self.refuse('"examples": [1]', "Example must be JSON object but got JSON Number")
        self.refuse('"context": true, "examples": [{}]', "Example must be JSON object but got JSON True")

    def test_no_examples(self):
        for features, text in (
            ('"x": 1', "When method is classify, key 'examples' is expected and was not found"),
            ('"examples": 1', "Expecting 'examples' value to be an list/array"),
            ('"examples": []', "'examples' value is an empty array"),
        ):
            status, answer = shared_server().post("half_plus_three:regress", REGRESS % features)
            self.assertEqual(status, 400)
            self.assertIn(text, answer)

    def test_signatures(self):
        call, body = "half_plus_three:classify", '{%s"examples": [{"x": 1.0}]}'
        self.check(
            call,
            body % "",
            ERROR % "Expected classification signature method_name to be tensorflow/serving/classify. "
            "Was: tensorflow/serving/predict",
            400,
        )
        self.check(
            call, body % '"signature_name": "z", ', ERROR % "No signature was found with the name: z", 400
        )
        self.check("x:regress", body % "", ERROR % "Servable not found for request: Latest(x)", 404)


class Status(unittest.TestCase):
    def get(self, path):
        return shared_server().request("GET", f"/v1/models{path}")

    def test_one_version(self):
        expected = """\
{
 "model_version_status": [
  {
   "version": "1",
   "state": "AVAILABLE",
   "status": {
    "error_code": "OK",
    "error_message": ""
   }
  }
 ]
}
"""
        for path in ("/demo", "/demo/versions/1"):
            self.assertEqual(self.get(path), (200, expected))

    def test_several_versions(self):
        for path, expected in (
            ("", ["124", "123"]),
            ("/versions/123", ["123"]),
            ("/labels/stable", ["123"]),
        ):
            status, text = self.get(f"/half_plus_three{path}")
            self.assertEqual(status, 200)
            versions = [entry["version"] for entry in json.loads(text)["model_version_status"]]
            self.assertEqual(versions, expected)

    def test_unknown(self):
        self.assertEqual(self.get("/x"), (404, ERROR % "Could not find any versions of model x"))
        self.assertEqual(
            self.get("/demo/versions/9"), (404, ERROR % "Could not find version 9 of model demo")
        )
        self.assertEqual(self.get("/demo/labels/z"), (400, ERROR % "Unrecognized servable version label: z"))
        self.assertEqual(self.get(""), (400, ERROR % "Missing model name in request."))

    def test_metadata(self):
        status, text = self.get("/half_plus_three/versions/123/metadata")
        self.assertEqual(status, 200)
        answer = json.loads(text)
        self.assertEqual(
            answer["model_spec"], {"name": "half_plus_three", "signature_name": "", "version": "123"}
        )
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        self.assertEqual(
            sorted(signatures),
            [
                "classify_x_to_y",
                "regress_x2_to_y3",
                "regress_x_to_y",
                "regress_x_to_y2",
                "serving_default",
                "tensorflow/serving/regress",
            ],
        )
        self.assertEqual(signatures["serving_default"]["method_name"], "tensorflow/serving/predict")
        x = signatures["serving_default"]["inputs"]["x"]
        self.assertEqual((x["name"], x["dtype"]), ("x:0", "DT_FLOAT"))
        self.assertEqual([dim["size"] for dim in x["tensor_shape"]["dim"]], ["-1", "1"])
        self.assertEqual(self.get("/x/metadata"), (404, ERROR % "Servable not found for request: Latest(x)"))


class Malformed(unittest.TestCase):
    def test_malformed(self):
        predict = "/v1/models/half_plus_three:predict"
        for method, path in (
            ("POST", f"{predict}?a=b"),
            ("GET", predict),
            ("PUT", predict),
            ("DELETE", "/v1/models/demo"),
            ("POST", "/v1/models/demo"),
            ("POST", "/v1/models/demo:explain"),
            ("POST", "/v1/models/demo/versions/x:predict"),
            ("GET", "/v1/other"),
        ):
            with self.subTest(f"{method} {path}"):
                body = '{"instances": [1]}' if method in ("POST", "PUT") else None
                answer = shared_server().request(method, path, body)
                self.assertEqual(answer, (400, ERROR % f"Malformed request: {method} {path}"))

    def test_a_query_string_makes_metadata_malformed_and_status_ask_for_an_odd_name(self):
        get = shared_server().request
        path = "/v1/models/demo/metadata?a=b"
        self.assertEqual(get("GET", path), (400, ERROR % f"Malformed request: GET {path}"))
        answer = get("GET", "/v1/models/demo?a=b")
        self.assertEqual(answer, (404, ERROR % "Could not find any versions of model demo?a=b"))

    def test_targets_that_are_no_uris(self):
        for target in ("/v1/models/de<mo", "/v1/models/d\xe4", "/v1/models/%zz", "/v1/models/%4"):
            with self.subTest(target):
                status, text = shared_server().raw(f"GET {target} HTTP/1.1\r\n\r\n")
                self.assertEqual((status, "Bad Request" in text), (400, True))

    def test_an_absolute_uri_and_a_lone_authority_are_taken_off(self):
        for before in ("http://elsewhere", "//elsewhere"):
            status, text = shared_server().raw(f"GET {before}/v1/models/demo HTTP/1.1\r\n\r\n")
            self.assertEqual((status, "AVAILABLE" in text), (200, True))

    def test_not_the_api(self):
        for path in ("/", "/v2/models/demo", "/metrics"):
            status, text = shared_server().request("GET", path)
            self.assertEqual(status, 404)
            self.assertIn("Not Found", text)
