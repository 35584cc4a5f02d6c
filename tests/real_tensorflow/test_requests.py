"""What clients send and get, with TensorFlow behind it: one and two instances, batching off and on."""

import json
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness import CSV, JSON, JSON_LINES, PREDICTIONS, ROW, Case

# One server after the other: each holds TensorFlow in memory once an instance.
BATCHING = {
    "SAGEMAKER_TFS_ENABLE_BATCHING": "true",
    "SAGEMAKER_TFS_MAX_BATCH_SIZE": "4",
    "SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS": "5000",
    # So many that none of the requests sent at once finds the queue full, which is a 503.
    "SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES": "100",
}
LOADING_SECONDS = 60


class Requests:
    """The tests; the classes below say how the server is set up."""

    instances = 1
    env = {}

    @classmethod
    def setUpClass(cls):
        cls.server = cls.start(cls.model_dir("half_plus_three"), instances=cls.instances, env=cls.env)
        cls.server.wait_ready()
        for port in cls.server.rest_ports:  # /ping needs one instance only
            cls.server.wait_listening(port)

    def predict(self, body, expected, **request):
        self.check(self.server, body, expected, **request)

    def test_json(self):
        self.predict('{"instances": [1.0, 2.0, 5.0]}', PREDICTIONS)
        self.predict('{"inputs": [1.0, 2.0, 5.0]}', '{\n    "outputs": [\n        3.5,\n        4.0,\n        5.5\n    ]\n}')

    def test_generic_json(self):
        self.predict("[1.0, 2.0, 5.0]", ROW)
        self.predict("[[1.0, 2.0, 5.0]]", ROW)
        self.predict("1.0", '{\n    "predictions": [3.5\n    ]\n}')

    def test_json_lines(self):
        self.predict("1.0\n2.0\n5.0\n", PREDICTIONS, content_type=JSON_LINES)
        self.predict("[1.0, 2.0, 5.0]\n", ROW, content_type=JSON_LINES)
        requests = '{"instances": [1.0]}\n{"instances": [2.0, 5.0]}\n'
        self.predict(requests, PREDICTIONS, content_type=JSON_LINES)

    def test_csv(self):
        self.predict("1.0\n2.0\n5.0\n", PREDICTIONS, content_type=CSV)
        self.predict("1,2.,+5e0\r\n", ROW, content_type=CSV)

    def test_accept(self):
        one_line = '{    "predictions": [3.5, 4.0, 5.5    ]}'
        self.predict('{"instances": [1.0, 2.0, 5.0]}', one_line, accept=JSON)
        answer = self.invoke(self.server, "1.0\n2.0\n5.0", JSON_LINES, accept=f"{JSON_LINES}, */*")
        self.assertEqual((answer.text, answer.headers["Content-Type"]), (one_line, JSON_LINES))

    def test_regress(self):
        body = '{"signature_name": "%s", "examples": [{"x": 1.0}, {"x": 2.0}]}'
        for signature, expected in (("regress_x_to_y", "3.5, 4.0"), ("regress_x_to_y2", "4.5, 5.0")):
            self.predict(
                body % signature, '{\n    "results": [%s]\n}' % expected, attributes="tfs-method=regress"
            )

    def test_classify(self):
        answer = self.invoke(
            self.server,
            '{"signature_name": "classify_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]}',
            attributes="tfs-method=classify",
        )
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual(json.loads(answer.body), {"results": [[["", 3.5]], [["", 4.0]]]})

    def test_versions(self):
        for version in ("123", "124"):
            attributes = f"tfs-model-name=half_plus_three,tfs-model-version={version},x=y"
            self.predict('{"instances": [1.0, 2.0, 5.0]}', PREDICTIONS, attributes=attributes)
        error = self.error_text(self.server, "1.0", status=404, attributes="tfs-model-version=125")
        self.assertIn("Servable not found for request: Specific(half_plus_three, 125)", error)
        error = self.error_text(self.server, "1.0", status=404, attributes="tfs-model-name=other")
        self.assertIn("Servable not found for request: Latest(other)", error)

    def test_errors_are_in_the_words_of_tensorflow_serving(self):
        for body, expected in (
            ("", "JSON Parse error: The document is empty"),
            ('{"instances": [1.0,]}', "JSON Parse error: Invalid value."),
            ('{"instances": []}', "No values in 'instances' array"),
            (
                '{"instances": [1.0, "two"]}',
                "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"two\" "
                "Type: String is not of expected type: float",
            ),
        ):
            self.assertIn(expected, self.error_text(self.server, body))
        wrong_signature = '{"signature_name": "other", "instances": [1.0]}'
        self.assertIn("other", self.error_text(self.server, wrong_signature))

    def states(self, port):
        answer = self.server.request("GET", "/v1/models/half_plus_three", port=port)
        return [version["state"] for version in json.loads(answer.body)["model_version_status"]]

    def test_every_instance_serves_and_many_requests_at_once_are_answered(self):
        for port in self.server.rest_ports:
            # One instance is enough to be ready; another may still be loading its older version.
            deadline = time.monotonic() + LOADING_SECONDS
            while "LOADING" in (states := self.states(port)) and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertEqual(states, ["AVAILABLE"] * 2)

        def predict(number):
            answer = self.invoke(self.server, f'{{"instances": [{number}.0]}}')
            return json.loads(answer.body)["predictions"]

        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(predict, range(100)))
        self.assertEqual(answers, [[number / 2 + 3] for number in range(100)])


class OneInstance(Requests, Case):
    pass


class OneInstanceBatching(Requests, Case):
    env = BATCHING

    def test_more_rows_than_a_batch_may_have_get_400(self):
        error = self.error_text(self.server, '{"instances": [1, 2, 3, 4, 5]}')
        self.assertEqual(error, "Task size 5 is larger than maximum input batch size 4")


class TwoInstances(Requests, Case):
    instances = 2


class TwoInstancesBatching(Requests, Case):
    instances = 2
    env = BATCHING


if __name__ == "__main__":
    unittest.main()
