"""The REST API of the running stand-in, with TensorFlow: values, layouts, errors, connections."""

import json
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness import Server, batching, config, model, shared_server

ANY_SHAPE = '{"signature_name": "any_shape", "inputs": %s}'
STRINGS = '{"signature_name": "strings", "inputs": %s}'
REGRESS = '{"signature_name": "regress_x_to_y", %s}'
EIGHT_BITS = '{"signature_name": "numbers", "inputs": {"double": 0.1, "int32": 1, "uint8": 300}}'
EXAMPLES = REGRESS % '"examples": [%s]'

# Bodies of predict requests and the values of their answers.
VALUES = (
    ("half_plus_three/versions/123", '{"instances": [1.0, 2.0]}', {"predictions": [3.5, 4.0]}),
    ("half_plus_three", '{"inputs": {"x": [[1], [2]]}}', {"outputs": [[3.5], [4.0]]}),
    ("half_plus_three", '{"signature_name": "", "inputs": 1}', {"outputs": 3.5}),
    ("half_plus_three", '{"signature_name": "regress_x_to_y", "instances": [{"b64": ""}]}', {"predictions": [[3.0]]}),
    ("types", ANY_SHAPE % "1", {"outputs": 2.0}),
    ("types", ANY_SHAPE % "[[[1, 2]], [[3, 4]]]", {"outputs": [[[2.0, 3.0]], [[4.0, 5.0]]]}),
    ("types", STRINGS % r'"\u00e4\ud83d\ude00"', {"outputs": {"b64": "w6Twn5iA"}}),
    ("types", EIGHT_BITS, {"outputs": {"double": 0.1, "int32": 1, "uint8": 44}}),
)

# Calls and their answers to the byte.
TWO_ROWS = (
    '{"instances": [{"f": 1, "i": 9007199254740993, "b": true, "s": "a"}, '
    '{"f": 0.5, "i": -3, "b": false, "s": {"b64": "AP8="}}]}'
)
ROWS = """\
{
    "predictions": [
        {
            "half": 0.5,
            "next": 9007199254740994,
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
COLUMNS = """\
{
    "outputs": {
        "double": [
            [
                0.33333333333333331
            ]
        ],
        "int32": [
            1,
            2
        ],
        "uint8": []
    }
}"""
LAYOUTS = (
    ("half_plus_three:predict", '{"instances": [1.0, 2.0, 5.0]}', '{\n    "predictions": [3.5, 4.0, 5.5\n    ]\n}'),
    ("types:predict", TWO_ROWS, ROWS),
    (
        "types:predict",
        '{"signature_name": "numbers", "inputs": {"double": [[0.33333333333333333]], "int32": [1, 2], "uint8": []}}',
        COLUMNS,
    ),
    (
        "types:predict",
        '{"signature_name": "echo", "instances": [0.2, 0.33333334, 1e20, -0.0, 1e7, 123456.7, NaN, -Infinity]}',
        '{\n    "predictions": [0.2, 0.333333343, 1e+20, -0.0, 1e+07, 123456.703, NaN, -Infinity\n    ]\n}',
    ),
    (
        "half_plus_three:regress",
        REGRESS % '"context": {"x": 1.0}, "examples": [{}, {"x": 2.0}]',
        '{\n    "results": [3.5, 4.0]\n}',
    ),
    (
        "half_plus_three:classify",
        '{"signature_name": "classify_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]}',
        '{\n    "results": [[["", 3.5]], [["", 4.0]]\n    ]\n}',
    ),
)

# The models, bodies and errors of predict requests; the recorded cases have many more.
PREDICT_ERRORS = (
    ("half_plus_three", '{"instances": [true]}', 400, "JSON Value: true Type: True is not of expected type: float"),
    ("half_plus_three", '{"instances": [1e39]}', 400, "JSON value: 1e+39 to float without loss of precision."),
    ("half_plus_three", '{"inputs": [16777216]}', 400, "JSON value: 16777216 to float without loss of precision."),
    ("half_plus_three", '{"inputs": [1e400]}', 400, "JSON Parse error: Number too big to be stored in double."),
    ("half_plus_three", '{"inputs": [%s]}' % ("1" * 5000), 400, "Number too big to be stored in double."),
    ("half_plus_three", '{"x": "\\ud800"}', 400, "JSON Parse error: The surrogate pair in string is invalid."),
    ("half_plus_three", "[" * 100_000, 400, "JSON nested too deep for the local stand-in"),
    ("half_plus_three", '{"inst', 400, "Missing a closing quotation mark in string."),
    ("half_plus_three", '{"a\\x": 1}', 400, "Invalid escape character in string."),
    ("half_plus_three", '{"a\n": 1}', 400, "Invalid encoding in string."),
    ("half_plus_three", '{"instances": 1}', 400, "Expecting 'instances' to be an list/array"),
    ("half_plus_three", '{"instances": []}', 400, "No values in 'instances' array"),
    ("half_plus_three", '{"instances": [1, {}]}', 400, "Expecting value/list but got object at item 1"),
    ("half_plus_three", '{"inputs": [[1, [2]]]}', 400, "Encountered list at unexpected level: 2 expected < 2"),
    ("half_plus_three", '{"signature_name": "x"}', 400, 'Serving signature name: "x" not found in signature def'),
    ("types", '{"instances": [1]}', 400, "instances is a plain list, but expecting list of objects"),
    ("types", '{"instances": [{"f": 1}]}', 400, '{\n    "f": 1\n} keys must be equal to: b,f,i,s'),
    ("types", STRINGS % '[{"b64": 1}]', 400, "not formatted correctly for base64 data"),
    ("types", '{"signature_name": "sums", "instances": [[1, 2]]}', 400, "Tensor name: total has no shape info"),
    ("x", "{}", 404, "Servable not found for request: Latest(x)"),
    ("demo/versions/5", "{}", 404, "Servable not found for request: Specific(demo, 5)"),
    ("demo", '{"inputs": [[1, 2, 3]]}', 400, "Incompatible shapes: [1,3] vs. [4]"),
    ("image", '{"instances": [{"b64": "AAAA"}]}', 400, "Unknown image file format"),
    ("slow", '{"instances": [30]}', 504, "Timed out waiting for notification"),
)
OTHER_ERRORS = (
    ("demo:explain", "{}", 400, "Malformed request: POST /v1/models/demo:explain"),
    ("demo:predict?a=b", "{}", 400, "Malformed request: POST /v1/models/demo:predict?a=b"),
    ("x:regress", '{"examples": [{}]}', 404, "Servable not found for request: Latest(x)"),
    ("demo:regress", '{"signature_name": "z", "examples": [{}]}', 400, "No signature was found with the name: z"),
    ("demo:classify", '{"examples": [{}]}', 400, "method_name to be tensorflow/serving/classify. Was: tensorflow/s"),
    ("half_plus_three:regress", "{}", 400, "key 'examples' is expected and was not found"),
    ("half_plus_three:regress", REGRESS % '"examples": 1', 400, "Expecting 'examples' value to be an list/array"),
    ("half_plus_three:regress", REGRESS % '"examples": []', 400, "'examples' value is an empty array"),
    ("half_plus_three:regress", EXAMPLES % "1", 400, "Example must be JSON object but got JSON Number"),
    ("half_plus_three:regress", EXAMPLES % '{"x": true}', 400, "Data type: int64 but expected type: float"),
    ("half_plus_three:regress", EXAMPLES % '{"x": "a"}', 400, "Data type: string but expected type: float"),
    ("half_plus_three:regress", EXAMPLES % '{"x": null}', 400, "element with unexpected JSON type: Null"),
    ("half_plus_three:regress", EXAMPLES % '{"x": [1.0, "a"]}', 400, "in feature: x expecting type: float"),
    ("half_plus_three:regress", EXAMPLES % '{"x": 9223372036854775808}', 400, "Only int64 is supported."),
)

AVAILABLE = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


class Answers(unittest.TestCase):
    maxDiff = None

    def test_values(self):
        for name, body, expected in VALUES:
            with self.subTest(body):
                status, text = shared_server().post(f"{name}:predict", body)
                self.assertEqual((status, json.loads(text)), (200, expected))

    def test_layouts(self):
        for call, body, expected in LAYOUTS:
            with self.subTest(body):
                self.assertEqual(shared_server().post(call, body), (200, expected))

    def test_errors(self):
        predict = [(f"{name}:predict", *case) for name, *case in PREDICT_ERRORS]
        for call, body, status, expected in (*predict, *OTHER_ERRORS):
            with self.subTest(body[:80]):
                found, text = shared_server().post(call, body)
                self.assertEqual(found, status, text)
                self.assertIn(expected, json.loads(text)["error"])

    def test_a_large_request(self):
        rows = [[float(i), 0.5, -1.25] for i in range(50_000)]
        _, text = shared_server().post("half_plus_three:predict", json.dumps({"instances": rows}))
        answer = json.loads(text)["predictions"]
        self.assertEqual((len(answer), answer[-1]), (50_000, [49_999 / 2 + 3, 3.25, 2.375]))


class Models(unittest.TestCase):
    def test_status(self):
        get = shared_server().request
        for path in ("demo", "demo/versions/1"):
            status, text = get("GET", f"/v1/models/{path}")
            self.assertEqual((status, json.loads(text)), (200, {"model_version_status": [AVAILABLE]}))
        self.assertEqual(list(shared_server().states("half_plus_three")), [124, 123])
        for path, text in (
            ("x", "Could not find any versions of model x"),
            ("demo/versions/9", "Could not find version 9 of model demo"),
            ("demo?a=b", "Could not find any versions of model demo?a=b"),
            ("x/metadata", "Servable not found for request: Latest(x)"),
        ):
            self.assertEqual(get("GET", f"/v1/models/{path}"), (404, f'{{\n    "error": "{text}"\n}}'))
        self.assertEqual(get("GET", "/v1/models/demo:predict")[0], 400)
        self.assertEqual(get("GET", "/metrics")[0], 404)

    def test_metadata(self):
        status, text = shared_server().request("GET", "/v1/models/half_plus_three/versions/123/metadata")
        answer = json.loads(text)
        spec = {"name": "half_plus_three", "signature_name": "", "version": "123"}
        self.assertEqual((status, answer["model_spec"]), (200, spec))
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        self.assertIn("regress_x_to_y", signatures)
        self.assertEqual(signatures["serving_default"]["method_name"], "tensorflow/serving/predict")
        x = signatures["serving_default"]["inputs"]["x"]
        self.assertEqual((x["name"], x["dtype"]), ("x:0", "DT_FLOAT"))
        self.assertEqual([dim["size"] for dim in x["tensor_shape"]["dim"]], ["-1", "1"])


class Connections(unittest.TestCase):
    def test_a_connection_is_kept_also_after_an_error(self):
        connection = shared_server().connect()
        self.addCleanup(connection.close)
        sockets = set()
        for body, status in ((b'{"instances": [1]}', 200), (b"abc", 400), (iter([b'{"inputs"', b": 1}"]), 200)):
            connection.request("POST", "/v1/models/half_plus_three:predict", body)  # the last one in chunks
            response = connection.getresponse()
            self.assertEqual((response.status, response.getheader("Content-Type")), (status, "application/json"))
            response.read()
            sockets.add(connection.sock.getsockname())
        self.assertEqual(len(sockets), 1)


class Batching(unittest.TestCase):
    def test_what_does_not_fit_into_a_batch_gets_400(self):
        sizes = '{"signature_name": "numbers", "inputs": {"double": [1], "int32": [1, 2], "uint8": [3]}}'
        with Server(config(model("half_plus_three"), model("types")), *batching(max_batch_size=3)) as server:
            for name, body, expected in (
                ("half_plus_three", '{"inputs": [1, 1, 1, 1]}', "Task size 4 is larger than maximum input batch s"),
                ("half_plus_three", '{"inputs": 1}', "input tensors must have at least one dimension"),
                ("types", sizes, "input tensors must have equal 0th-dimension size"),
            ):
                status, text = server.post(f"{name}:predict", body)
                self.assertEqual(status, 400, text)
                self.assertIn(expected, json.loads(text)["error"])
            self.assertEqual(server.post("half_plus_three:predict", '{"instances": [1, 1, 1]}')[0], 200)

    def test_the_queue(self):
        sizes = {"max_batch_size": 2, "num_batch_threads": 1, "max_enqueued_batches": 1}
        with Server(config(model("slow")), *batching(**sizes)) as server:
            # One batch runs and one waits; the rest is turned away while both are there.
            with ThreadPoolExecutor(6) as threads:
                answers = list(threads.map(lambda _: server.post("slow:predict", '{"instances": [2, 2]}'), range(6)))
            statuses = [status for status, _ in answers]
            self.assertEqual(set(statuses), {200, 503}, answers)
            self.assertGreaterEqual(statuses.count(200), 2)
            text = "The batch scheduling queue to which this task was submitted is full; currently 1 batches enqueued"
            self.assertTrue(all(text in answer for status, answer in answers if status == 503))
            # Two requests share the place of a batch, so of three none is turned away.
            begun = threading.Barrier(3)

            def ask(_):
                begun.wait()
                return server.post("slow:predict", '{"instances": [1]}')[0]

            with ThreadPoolExecutor(3) as threads:
                self.assertEqual(list(threads.map(ask, range(3))), [200] * 3)
