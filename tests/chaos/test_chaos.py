"""The chaos run's judgement: what it must not let pass, and what it must not blame."""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS / "chaos")]

from asked import Maker
from report import MB, Footprint, is_flat
from tally import Kill, Tally
from wire import HOST, Answer, Connection, NoAnswer

ENDED = json.dumps({"error": "The Python worker was restarted while it ran input_handler: signal 9"}).encode()


def echo(rows: list) -> Answer:
    return Answer(200, {}, json.dumps({"instances": rows}).encode())


class Judgement(unittest.TestCase):
    def setUp(self) -> None:
        self.tally = Tally()
        maker = Maker(random.Random(1), 7, handlers=False)
        while (request := maker.next()).kind != "JSON lines" or "instances" in request.body.decode():
            pass
        self.request = request
        self.rows = [json.loads(line) for line in request.body.splitlines()]

    def answer(self, answer: Answer) -> None:
        begun = self.tally.begin(7)
        self.tally.answer(7, self.request, "plainly", answer, begun)

    def counts(self) -> tuple[int, int, int, int]:
        return self.tally.right, self.tally.wrong, self.tally.mixed_up, self.tally.lost

    def test_the_right_answer(self) -> None:
        self.answer(echo(self.rows))
        self.assertEqual(self.counts(), (1, 0, 0, 0), self.tally.failures)

    def test_other_content_is_wrong(self) -> None:
        self.answer(echo([*self.rows, 1]))
        self.answer(Answer(200, {}, b"no JSON"))
        self.assertEqual(self.counts(), (0, 2, 0, 0))

    def test_the_answer_of_another_request_is_mixed_up(self) -> None:
        self.answer(echo(["m3-14-0123abcd"]))
        self.assertEqual(self.counts(), (0, 1, 1, 0))

    def test_another_status_is_a_lost_request(self) -> None:
        for status in (400, 500, 502, 503, 504):
            self.answer(Answer(status, {}, b'{"error": "x"}'))
        self.assertEqual(self.counts(), (0, 0, 0, 5))

    def test_no_answer_is_a_lost_request(self) -> None:
        self.tally.no_answer(7, self.request, "plainly", "closed", self.tally.begin(7))
        self.assertEqual(self.counts(), (0, 0, 0, 1))

    def test_a_killed_worker_excuses_one_answer_of_its_time(self) -> None:
        self.tally.worker_kills.append(Kill(time.monotonic()))
        self.answer(Answer(500, {}, ENDED))
        self.assertEqual((self.tally.ended_with_worker, self.tally.lost), (0, 1), "it was killed before")
        begun = self.tally.begin(7)
        self.tally.worker_kills.append(Kill(time.monotonic()))
        for _ in range(2):
            self.tally.answer(7, self.request, "plainly", Answer(500, {}, ENDED), begun)
        self.assertEqual((self.tally.ended_with_worker, self.tally.lost), (1, 2), "one call ends with it")

    def test_pings(self) -> None:
        self.tally.ping(200, "")
        self.tally.ping(502, "")
        self.tally.ping(200, "")
        self.assertGreater(self.tally.longest_without_ping, 0)
        self.assertEqual(self.counts(), (0, 0, 0, 0))
        self.tally.ping(502, "it must be ready")
        self.tally.ping(None, "closed")
        self.assertEqual(self.counts(), (0, 1, 0, 1))


class Flatness(unittest.TestCase):
    def test_growth_beyond_the_limits_is_not_flat(self) -> None:
        before = Footprint(100 * MB, 50, 90)
        self.assertTrue(is_flat(before, before))
        self.assertFalse(is_flat(before, Footprint(100 * MB, 150, 90)))
        self.assertFalse(is_flat(before, Footprint(100 * MB, 50, 190)))
        self.assertFalse(is_flat(before, Footprint(300 * MB, 50, 90)))


class Requests(unittest.TestCase):
    def test_a_seed_makes_the_same_requests_again_and_no_two_are_alike(self) -> None:
        for handlers in (False, True):
            makers = [Maker(random.Random(5), 1, handlers) for _ in range(2)]
            requests, again = ([maker.next() for _ in range(300)] for maker in makers)
            self.assertEqual([r.head() + r.body for r in requests], [r.head() + r.body for r in again])
            self.assertEqual(len({r.mark for r in requests}), len(requests))
            for request in requests:
                self.assertIn(request.mark.encode(), request.head() + request.body)


class Wire(unittest.TestCase):
    def received(self, sent: bytes) -> Answer:
        with socket.create_server((HOST, 0)) as listener:

            def serve() -> None:
                peer, _ = listener.accept()
                with peer:
                    peer.sendall(sent)

            server = threading.Thread(target=serve)
            server.start()
            connection = Connection(listener.getsockname()[1])
            try:
                # All of it is there, and its end.
                server.join()
                return connection.receive()
            finally:
                connection.close()

    def test_a_whole_answer(self) -> None:
        answer = self.received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\nab")
        self.assertEqual((answer.status, answer.headers["x"], answer.body), (200, "y", b"ab"))

    def test_less_or_more_than_an_answer_is_none(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        for sent in (b"", head[:-2], head, head + b"a", head + b"abc", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nab"):
            with self.assertRaises(NoAnswer, msg=sent):
                self.received(sent)


if __name__ == "__main__":
    unittest.main()
