"""The REST API of the running stand-in, with TensorFlow: answers, errors, connections, batching."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor

from tests.harness.case import ServerCase
from tests.harness.client import ANSWER_SECONDS
from tests.harness.constants import HOST, JSON

from .case import StandIn, batching, config, model, shared

STRINGS = '{"signature_name": "strings", "inputs": %s}'
REGRESS = '{"signature_name": "regress_x_to_y", %s}'
EXAMPLES = REGRESS % '"examples": [%s]'
PREDICTIONS = '{\n    "predictions": [%s\n    ]\n}'

ROW = """
        {
            "half": %s,
            "next": %s,
            "not": %s,
            "pair": [%s],
            "text": "%s",
            "text_bytes": {
                "b64": "%s"
            }
        }"""
TWO_ROWS = (
    '{"instances": [{"f": 1, "i": 9007199254740993, "b": true, "s": "a"}, '
    '{"f": 0.5, "i": -3, "b": false, "s": {"b64": "AP8="}}]}'
)
ROWS = (
    ROW % (0.5, 9007199254740994, "false", "1.0, -1.0", "a", "YQ=="),
    ROW % (0.25, -2, "true", "0.5, -0.5", r"\u0000\xff", "AP8="),
)
NUMBERS = '{"signature_name": "numbers", "inputs": {"double": [[0.33333333333333333]], "int32": [], "uint8": 300}}'
COLUMNS = """\
{
    "outputs": {
        "double": [
            [
                0.33333333333333331
            ]
        ],
        "int32": [],
        "uint8": 44
    }
}"""
FLOATS = '{"signature_name": "echo", "instances": [0.2, 0.33333334, 1e20, -0.0, 1e7, 123456.7, NaN, -Infinity]}'
CONTEXT = REGRESS % '"context": {"x": 1.0}, "examples": [{}, {"x": 2.0}]'
CLASSES = '{"signature_name": "classify_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]}'
# Calls, bodies, and the answers to the byte. The recorded cases have the layouts of a single output.
ANSWERS = (
    ("half_plus_three/versions/123:predict", '{"instances": [1.0, 2.0]}', PREDICTIONS % "3.5, 4.0"),
    ("half_plus_three:predict", '{"inputs": {"x": [2]}}', '{\n    "outputs": [\n        4.0\n    ]\n}'),
    ("half_plus_three:predict", '{"signature_name": "", "inputs": 1}', '{\n    "outputs": 3.5\n}'),
    ("half_plus_three:predict", REGRESS % '"instances": [{"b64": ""}]', PREDICTIONS % "[3.0]"),
    ("types:predict", '{"signature_name": "any_shape", "instances": [[[1, 2]]]}', PREDICTIONS % "[[2.0, 3.0]]"),
    ("types:predict", STRINGS % r'"\u00e4\ud83d\ude00"', '{\n    "outputs": {\n        "b64": "w6Twn5iA"\n    }\n}'),
    ("types:predict", TWO_ROWS, PREDICTIONS % ",".join(ROWS)),
    ("types:predict", NUMBERS, COLUMNS),
    ("types:predict", FLOATS, PREDICTIONS % "0.2, 0.333333343, 1e+20, -0.0, 1e+07, 123456.703, NaN, -Infinity"),
    ("half_plus_three:regress", CONTEXT, '{\n    "results": [3.5, 4.0]\n}'),
    ("half_plus_three:classify", CLASSES, '{\n    "results": [[["", 3.5]], [["", 4.0]]\n    ]\n}'),
)

# Calls, of which models alone mean `predict`, bodies and errors; the recorded cases have many more.
ERRORS = (
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


class Answers(ServerCase):
    def test_answers_to_the_byte(self):
        for call, body, expected in ANSWERS:
            with self.subTest(body):
                self.check(shared().post(call, body), expected)

    def test_errors(self):
        for call, body, status, expected in ERRORS:
            call = call if ":" in call else f"{call}:predict"
            with self.subTest(call, body=body[:80]):
                self.check_error(shared().post(call, body), status, expected)

    def test_a_large_request(self):
        rows = [[float(i), 0.5, -1.25] for i in range(50_000)]
        answer = shared().post("half_plus_three:predict", json.dumps({"instances": rows})).json()["predictions"]
        self.assertEqual((len(answer), answer[-1]), (50_000, [49_999 / 2 + 3, 3.25, 2.375]))

    def test_a_connection_is_kept_also_after_an_error(self):
        connection = http.client.HTTPConnection(HOST, shared().rest_port, timeout=ANSWER_SECONDS)
        self.addCleanup(connection.close)
        sockets = set()
        for body, status in ((b'{"instances": [1]}', 200), (b"abc", 400), (iter([b'{"inputs"', b": 1}"]), 200)):
            connection.request("POST", "/v1/models/half_plus_three:predict", body)  # the last one in chunks
            response = connection.getresponse()
            self.assertEqual((response.status, response.getheader("Content-Type")), (status, JSON))
            response.read()
            sockets.add(connection.sock.getsockname())
        self.assertEqual(len(sockets), 1)


class Models(ServerCase):
    def get(self, path):
        return shared().request("GET", f"/v1/models/{path}")

    def test_status(self):
        for path in ("demo", "demo/versions/1"):
            self.check_json(self.get(path), {"model_version_status": [AVAILABLE]})
        self.assertEqual(list(shared().states("half_plus_three")), [124, 123])
        for path, text in (
            ("x", "Could not find any versions of model x"),
            ("demo/versions/9", "Could not find version 9 of model demo"),
            ("demo?a=b", "Could not find any versions of model demo?a=b"),
            ("x/metadata", "Servable not found for request: Latest(x)"),
        ):
            self.check(self.get(path), f'{{\n    "error": "{text}"\n}}', 404)
        self.assertEqual(self.get("demo:predict").status, 400)
        self.assertEqual(shared().request("GET", "/metrics").status, 404)

    def test_metadata(self):
        answer = self.get("half_plus_three/versions/123/metadata").json()
        self.assertEqual(answer["model_spec"], {"name": "half_plus_three", "signature_name": "", "version": "123"})
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        self.assertIn("regress_x_to_y", signatures)
        self.assertEqual(signatures["serving_default"]["method_name"], "tensorflow/serving/predict")
        x = signatures["serving_default"]["inputs"]["x"]
        self.assertEqual((x["name"], x["dtype"]), ("x:0", "DT_FLOAT"))
        self.assertEqual([dim["size"] for dim in x["tensor_shape"]["dim"]], ["-1", "1"])


class Batching(ServerCase):
    def test_what_does_not_fit_into_a_batch_gets_400(self):
        sizes = '{"signature_name": "numbers", "inputs": {"double": [1], "int32": [1, 2], "uint8": [3]}}'
        with StandIn(config(model("half_plus_three"), model("types")), *batching(max_batch_size=3)) as server:
            server.wait_listening(server.rest_port)
            for name, body, expected in (
                ("half_plus_three", '{"inputs": [1, 1, 1, 1]}', "Task size 4 is larger than maximum input batch s"),
                ("half_plus_three", '{"inputs": 1}', "input tensors must have at least one dimension"),
                ("types", sizes, "input tensors must have equal 0th-dimension size"),
            ):
                self.check_error(server.post(f"{name}:predict", body), 400, expected)
            self.check(
                server.post("half_plus_three:predict", '{"instances": [2, 2, 2]}'), PREDICTIONS % "4.0, 4.0, 4.0"
            )

    def test_the_queue(self):
        sizes = {"max_batch_size": 2, "num_batch_threads": 1, "max_enqueued_batches": 1}
        with StandIn(config(model("slow")), *batching(**sizes)) as server, ThreadPoolExecutor(6) as threads:
            server.wait_listening(server.rest_port)
            # One batch runs and one waits; the rest is turned away while both are there.
            answers = list(threads.map(lambda _: server.post("slow:predict", '{"instances": [2, 2]}'), range(6)))
            refused = [answer for answer in answers if answer.status != 200]
            self.assertIn(len(refused), range(1, 5), answers)
            text = "The batch scheduling queue to which this task was submitted is full; currently 1 batches enqueued"
            for answer in refused:
                self.check_error(answer, 503, text)
            # Two requests share the place of a batch, so of three none is turned away.
            answers = list(threads.map(lambda _: server.post("slow:predict", '{"instances": [1]}'), range(3)))
            self.assertEqual([answer.status for answer in answers], [200] * 3)
