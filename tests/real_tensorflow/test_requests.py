"""What clients send and get, with TensorFlow behind the server: one instance, and two that batch."""

from concurrent.futures import ThreadPoolExecutor

from tests.harness.case import ServerCase
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
LINES = "1.0\n2.0\n5.0\n"
VERSION = "tfs-model-name=half_plus_three,tfs-model-version=%d,x=y"
# Body, the answer to the byte, and what the request has in addition.
ANSWERS = [
    (INSTANCES, PREDICTIONS, {}),
    ('{"inputs": [1.0, 2.0, 5.0]}', OUTPUTS, {}),
    ("[1.0, 2.0, 5.0]", ROW, {}),
    ("[[1.0, 2.0, 5.0]]", ROW, {}),
    ("1.0", '{\n    "predictions": [3.5\n    ]\n}', {}),
    (LINES, PREDICTIONS, {"content_type": JSON_LINES}),
    ("[1.0, 2.0, 5.0]\n", ROW, {"content_type": JSON_LINES}),
    ('{"instances": [1.0]}\n{"instances": [2.0, 5.0]}\n', PREDICTIONS, {"content_type": JSON_LINES}),
    (LINES, PREDICTIONS, {"content_type": CSV}),
    ("1,2.,+5e0\r\n", ROW, {"content_type": CSV}),
    (INSTANCES, ONE_LINE, {"accept": JSON}),
    (INSTANCES, PREDICTIONS, {"attributes": VERSION % 123}),
    (INSTANCES, PREDICTIONS, {"attributes": VERSION % 124}),
    (EXAMPLES % "regress_x_to_y", '{\n    "results": [3.5, 4.0]\n}', {"attributes": "tfs-method=regress"}),
    (EXAMPLES % "regress_x_to_y2", '{\n    "results": [4.5, 5.0]\n}', {"attributes": "tfs-method=regress"}),
]
# Body, status, a part of the error's text, and the attributes.
ERRORS = [
    ("", 400, "JSON Parse error: The document is empty", None),
    ('{"instances": [1.0,]}', 400, "JSON Parse error: Invalid value.", None),
    ('{"instances": []}', 400, "No values in 'instances' array", None),
    (
        '{"instances": [1.0, "two"]}',
        400,
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"two\" "
        "Type: String is not of expected type: float",
        None,
    ),
    ('{"signature_name": "other", "instances": [1.0]}', 400, "other", None),
    ("1.0", 404, "Servable not found for request: Specific(half_plus_three, 125)", "tfs-model-version=125"),
    ("1.0", 404, "Servable not found for request: Latest(other)", "tfs-model-name=other"),
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
            cls.server.wait_answer(port, "/v1/models/half_plus_three/versions/123/metadata")

    def test_answers_to_the_byte(self):
        for body, expected, options in ANSWERS:
            with self.subTest(body, **options):
                self.check(self.invoke(self.server, body, **options), expected)
        answer = self.invoke(self.server, LINES, JSON_LINES, accept=f"{JSON_LINES}, */*")
        self.check(answer, "3.5\n4.0\n5.5\n", content_type=JSON_LINES)

    def test_classify(self):
        answer = self.invoke(self.server, EXAMPLES % "classify_x_to_y", attributes="tfs-method=classify")
        self.check_json(answer, {"results": [[["", 3.5]], [["", 4.0]]]})

    def test_errors_have_the_words_of_tensorflow_serving(self):
        for body, status, part, attributes in ERRORS:
            with self.subTest(body, attributes=attributes):
                self.check_error(self.invoke(self.server, body, attributes=attributes), status, part)

    def test_many_requests_at_once_are_answered(self):
        def predict(number):
            return self.invoke(self.server, f'{{"instances": [{number}.0]}}').json()["predictions"]

        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(predict, range(100)))
        self.assertEqual(answers, [[number / 2 + 3] for number in range(100)])


class OneInstance(Requests, ServerCase):
    pass


class TwoInstancesBatching(Requests, ServerCase):
    instances = 2
    env = BATCHING

    def test_more_rows_than_a_batch_may_have_get_400(self):
        answer = self.invoke(self.server, '{"instances": [1, 2, 3, 4, 5]}')
        self.check_json(answer, {"error": "Task size 5 is larger than maximum input batch size 4"}, 400)
