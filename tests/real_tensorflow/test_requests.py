"""What clients send and get, with TensorFlow behind the server: one and two instances, batching off and on."""

from concurrent.futures import ThreadPoolExecutor

from tests.harness.case import Case
from tests.harness.client import wait_until
from tests.harness.constants import CSV, INSTANCES, JSON, JSON_LINES, PREDICTIONS, ROW

BATCHING = {
    "SAGEMAKER_TFS_ENABLE_BATCHING": "true",
    "SAGEMAKER_TFS_MAX_BATCH_SIZE": "4",
    "SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS": "5000",
    # None of the requests sent at once may find the queue full, which is a 503.
    "SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES": "100",
}
OUTPUTS = '{\n    "outputs": [\n        3.5,\n        4.0,\n        5.5\n    ]\n}'
ONE_LINE = '{    "predictions": [3.5, 4.0, 5.5    ]}'
EXAMPLES = '{"signature_name": "%s", "examples": [{"x": 1.0}, {"x": 2.0}]}'
# Format of the request, body, and the answer to the byte.
ANSWERS = [
    (JSON, INSTANCES, PREDICTIONS),
    (JSON, '{"inputs": [1.0, 2.0, 5.0]}', OUTPUTS),
    (JSON, "[1.0, 2.0, 5.0]", ROW),
    (JSON, "[[1.0, 2.0, 5.0]]", ROW),
    (JSON, "1.0", '{\n    "predictions": [3.5\n    ]\n}'),
    (JSON_LINES, "1.0\n2.0\n5.0\n", PREDICTIONS),
    (JSON_LINES, "[1.0, 2.0, 5.0]\n", ROW),
    (JSON_LINES, '{"instances": [1.0]}\n{"instances": [2.0, 5.0]}\n', PREDICTIONS),
    (CSV, "1.0\n2.0\n5.0\n", PREDICTIONS),
    (CSV, "1,2.,+5e0\r\n", ROW),
]
# Method, signature, and the results.
METHODS = [
    ("regress", "regress_x_to_y", [3.5, 4.0]),
    ("regress", "regress_x_to_y2", [4.5, 5.0]),
    ("classify", "classify_x_to_y", [[["", 3.5]], [["", 4.0]]]),
]
# Attributes, body, status, and a part of the error's text.
ERRORS = [
    (None, "", 400, "JSON Parse error: The document is empty"),
    (None, '{"instances": [1.0,]}', 400, "JSON Parse error: Invalid value."),
    (None, '{"instances": []}', 400, "No values in 'instances' array"),
    (
        None,
        '{"instances": [1.0, "two"]}',
        400,
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"two\" "
        "Type: String is not of expected type: float",
    ),
    (None, '{"signature_name": "other", "instances": [1.0]}', 400, "other"),
    ("tfs-model-version=125", "1.0", 404, "Servable not found for request: Specific(half_plus_three, 125)"),
    ("tfs-model-name=other", "1.0", 404, "Servable not found for request: Latest(other)"),
]


class Requests:
    """The tests; the classes below say how the server is set up."""

    instances = 1
    env = {}

    @classmethod
    def setUpClass(cls):
        cls.server = cls.start(cls.model_dir("half_plus_three"), instances=cls.instances, env=cls.env)
        cls.server.wait_ready()
        # /ping needs one instance only, and an instance serves before it has loaded the older version.
        for port in cls.server.rest_ports:
            cls.wait_loaded(port)

    @classmethod
    def wait_loaded(cls, port):
        def states():
            answer = cls.server.request("GET", "/v1/models/half_plus_three", port=port)
            return [version["state"] for version in answer.json()["model_version_status"]]

        cls.server.wait_listening(port)
        wait_until(lambda: states() == ["AVAILABLE"] * 2, lambda: f"the versions are {states()}")

    def test_answers_to_the_byte(self):
        for content_type, body, expected in ANSWERS:
            with self.subTest(content_type, body=body):
                self.check(self.invoke(self.server, body, content_type), expected)

    def test_accept(self):
        self.check(self.invoke(self.server, INSTANCES, accept=JSON), ONE_LINE)
        answer = self.invoke(self.server, "1.0\n2.0\n5.0", JSON_LINES, accept=f"{JSON_LINES}, */*")
        self.check(answer, ONE_LINE, content_type=JSON_LINES)

    def test_other_methods(self):
        for method, signature, results in METHODS:
            with self.subTest(signature):
                answer = self.invoke(self.server, EXAMPLES % signature, attributes=f"tfs-method={method}")
                self.check_json(answer, {"results": results})
        answer = self.invoke(self.server, EXAMPLES % "regress_x_to_y", attributes="tfs-method=regress")
        self.check(answer, '{\n    "results": [3.5, 4.0]\n}')

    def test_versions(self):
        for version in ("123", "124"):
            attributes = f"tfs-model-name=half_plus_three,tfs-model-version={version},x=y"
            self.check(self.invoke(self.server, INSTANCES, attributes=attributes), PREDICTIONS)

    def test_errors_have_the_words_of_tensorflow_serving(self):
        for attributes, body, status, part in ERRORS:
            with self.subTest(body, attributes=attributes):
                self.check_error(self.invoke(self.server, body, attributes=attributes), status, part)

    def test_many_requests_at_once_are_answered(self):
        def predict(number):
            return self.invoke(self.server, f'{{"instances": [{number}.0]}}').json()["predictions"]

        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(predict, range(100)))
        self.assertEqual(answers, [[number / 2 + 3] for number in range(100)])


class OneInstance(Requests, Case):
    pass


class OneInstanceBatching(Requests, Case):
    env = BATCHING

    def test_more_rows_than_a_batch_may_have_get_400(self):
        answer = self.invoke(self.server, '{"instances": [1, 2, 3, 4, 5]}')
        self.check_json(answer, {"error": "Task size 5 is larger than maximum input batch size 4"}, 400)


class TwoInstances(Requests, Case):
    instances = 2


class TwoInstancesBatching(Requests, Case):
    instances = 2
    env = BATCHING
