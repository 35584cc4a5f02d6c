"""What TFS turns away, and what ends it: batches that are too large or too many, JSON nested too deep."""

import json
import signal
import threading
import unittest

from harness import ANSWER_SECONDS, ERROR, Server, models, shared_server, write

FATAL_LEVELS = 18_000


class Batching(unittest.TestCase):
    def server(self, model, **parameters):
        text = "\n".join(f"{name} {{ value: {value} }}" for name, value in parameters.items())
        flags = ("--enable_batching=true", f"--batching_parameters_file={write(text)}")
        return Server(f"--model_base_path={models() / model}", f"--model_name={model}", *flags).ready()

    def test_more_rows_than_max_batch_size_get_400(self):
        with self.server("half_plus_three", max_batch_size=3) as server:
            call = "half_plus_three:predict"
            self.assertEqual(server.predict("half_plus_three", {"inputs": [1, 1, 1]}), {"outputs": [3.5, 3.5, 3.5]})
            text = ERROR % "Task size 4 is larger than maximum input batch size 3"
            self.assertEqual(server.post(call, {"instances": [1, 1, 1, 1]}), (400, text))
            text = ERROR % "Batching session Run() input tensors must have at least one dimension"
            self.assertEqual(server.post(call, {"inputs": 1}), (400, text))

    def test_inputs_of_different_sizes_make_no_batch(self):
        with self.server("types", max_batch_size=3) as server:
            body = {"signature_name": "numbers", "inputs": {"double": [1], "int32": [1, 2], "uint8": [3]}}
            text = ERROR % "Batching session Run() input tensors must have equal 0th-dimension size"
            self.assertEqual(server.post("types:predict", body), (400, text))

    def test_a_full_queue_gets_503_and_what_is_in_it_is_served(self):
        sizes = {"max_batch_size": 2, "num_batch_threads": 1, "max_enqueued_batches": 1}
        with self.server("slow", **sizes) as server:
            answers = []

            def ask():
                status, text = server.post("slow:predict", {"instances": [2.0, 2.0]})
                answers.append((status, json.loads(text)))

            # One batch runs and one waits; the rest is turned away while both are there.
            threads = [threading.Thread(target=ask) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(ANSWER_SECONDS)
        full = "The batch scheduling queue to which this task was submitted is full; currently "
        refused = [answer["error"] for status, answer in answers if status == 503]
        served = [answer for status, answer in answers if status == 200]
        self.assertEqual(len(refused) + len(served), 6, answers)
        self.assertGreaterEqual(len(refused), 1)
        self.assertGreaterEqual(len(served), 2)
        self.assertEqual(set(refused), {full + "1 batches enqueued and max_enqueued_batches is 1"})
        self.assertEqual(served, [{"predictions": [2.0, 2.0]}] * len(served))

    def test_requests_that_fit_into_one_batch_share_its_place(self):
        sizes = {"max_batch_size": 8, "num_batch_threads": 1, "max_enqueued_batches": 1}
        with self.server("slow", **sizes) as server:
            statuses = []

            def ask():
                statuses.append(server.post("slow:predict", {"instances": [0.5]})[0])

            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(ANSWER_SECONDS)
        self.assertEqual(statuses, [200] * 8)


class Nesting(unittest.TestCase):
    def test_deep_instances_kill_it(self):
        for member in ("instances", "inputs"):
            with self.subTest(member), Server(f"--model_base_path={models() / 'demo'}").ready() as server:
                deep = "[" * (FATAL_LEVELS + 2)
                with self.assertRaises((OSError, EOFError)):
                    server.post("default:predict", f'{{"{member}": {deep}1{"]" * len(deep)}}}')
                self.assertEqual(server.process.wait(ANSWER_SECONDS), -signal.SIGSEGV)

    def test_less_and_elsewhere_it_survives(self):
        def nested(levels):
            return "[" * levels + "1" + "]" * levels

        for body, status in (
            (f'{{"instances": {nested(FATAL_LEVELS - 1)}}}', 400),
            (f'{{"x": {nested(200_000)}, "instances": [1]}}', 200),
            (f'{{"instances": {nested(200_000)[:-5]}', 400),
            (nested(50_000), 400),
        ):
            self.assertEqual(shared_server().post("half_plus_three:predict", body)[0], status, body[:30])


if __name__ == "__main__":
    unittest.main()
