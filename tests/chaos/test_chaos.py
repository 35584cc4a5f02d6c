"""The chaos run's judgement: what it must not let pass, and what it must not blame."""

from __future__ import annotations

import json
import random
import re
import socket
import sys
import threading
import time
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS / "chaos")]

from asked import Maker
from attacks import TOO_DEEP, TOO_LARGE_HEAD, Attack, AttackMaker
from hostile import FIRST_NUMBER, Attacker
from report import MB, MOST_MORE_MEMORY, MOST_MORE_MEMORY_UNDER_LOAD, Footprint, Result, is_flat
from tally import TOLD_FAILURES, Kill, Tally
from wire import HOST, Answer, Closed, Connection, NoAnswer

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
        self.assertTrue(is_flat(before, Footprint(100 * MB + MOST_MORE_MEMORY, 50, 90)))
        self.assertFalse(is_flat(before, Footprint(100 * MB + MOST_MORE_MEMORY + 1, 50, 90)))

    def test_the_peak_is_judged_by_the_limit_of_bodies(self) -> None:
        target = SimpleNamespace(name="it", tally=Tally(), workers_wanted=0)
        injector = SimpleNamespace(killed_instances=set(), killed_workers=set())
        before = Footprint(100 * MB, 50, 90)
        for more, problems in ((0, []), (1, ["it: took"])):
            peak = before.memory + MOST_MORE_MEMORY_UNDER_LOAD + more
            result = Result(target, injector, before, Footprint(100 * MB, 50, 90, peak), starts=(2, 0), exit_code=0)
            result.is_complete = True
            self.assertEqual([problem[:8] for problem in result.problems()], problems)


class Hostile(unittest.TestCase):
    """What must not come of an attack, and what may."""

    def attacks(self, kind: str, handlers: bool = False, count: int = 20) -> list[Attack]:
        maker = AttackMaker(random.Random(3), FIRST_NUMBER, handlers)
        found: list[Attack] = []
        while len(found) < count:
            attack = maker.next()
            if attack.kind == kind:
                found.append(attack)
        return found

    def sent(self, attack: Attack) -> bytes:
        return b"".join(piece for piece, _ in attack.pieces)

    def assert_judged(self, attack: Attack, fine: set[int]) -> None:
        for status in (200, 204, 400, 404, 405, 415, 431, 500, 501, 502, 503, 504):
            is_fine = not attack.complaint(Answer(status, {}, b'{"error": "x"}'))
            self.assertEqual(is_fine, status in fine, (attack.kind, status))

    def test_what_must_be_refused_gets_4xx_or_503(self) -> None:
        for kind in ("smuggled request", "deep JSON", "large head", "POST /models"):
            for attack in self.attacks(kind):
                self.assert_judged(attack, {400, 404, 405, 415, 431, 501, 503})

    def test_a_script_may_fail_at_what_reaches_it(self) -> None:
        attack = next(a for a in self.attacks("deep JSON", True) if b"POST /invocations" in self.sent(a))
        self.assert_judged(attack, {400, 404, 405, 415, 431, 500, 501, 502, 503, 504})

    def test_what_is_costly_gets_its_own_answer_or_an_error(self) -> None:
        for handlers in (False, True):
            for kind in ("CSV of control characters", "small chunks"):
                attack = self.attacks(kind, handlers, 1)[0]
                self.assert_judged(attack, {400, 404, 405, 415, 431, 500, 501, 502, 503, 504})
        attack = self.attacks("JSON of empty names", count=1)[0]
        body = self.sent(attack).partition(b"\r\n\r\n")[2]
        self.assertEqual(attack.complaint(Answer(200, {}, b'{"instances": [%b]}' % body)), "")
        self.assertNotEqual(attack.complaint(Answer(200, {}, b'{"instances": [%b]}' % body[:-7])), "")

    def test_anothers_mark_is_wrong_with_any_status(self) -> None:
        for attack in self.attacks("smuggled request"):
            self.assertEqual(attack.complaint(Answer(400, {}, attack.mark.encode())), "")
            self.assertIn("m3-14-0123abcd", attack.complaint(Answer(400, {}, b"m3-14-0123abcd")))

    def test_a_smuggled_request_is_a_whole_prediction(self) -> None:
        methods = set()
        for attack in self.attacks("smuggled request", count=200):
            head, _, body = self.sent(attack).partition(b"\r\n\r\n")
            methods.add(head.split(b" ")[0])
            self.assertIn(b" /tfs/", head)
            self.assertIn(b"POST /v1/models/chaos:predict HTTP/1.1\r\n", body)
            self.assertIn(attack.mark.encode(), body.rpartition(b"\r\n\r\n{")[2])
            if length := re.search(rb"\r\nContent-Length: (\d+)", head):
                self.assertEqual(int(length[1]), len(body))
            else:
                self.assertTrue(body.endswith(b"\r\n0\r\n\r\n"))
        self.assertLessEqual({b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"CONNECT", b"get"}, methods)

    def test_what_is_too_deep_or_too_large_is(self) -> None:
        for attack in self.attacks("deep JSON"):
            self.assertGreaterEqual(self.sent(attack).count(b"[") + self.sent(attack).count(b"{"), TOO_DEEP)
        for attack in self.attacks("large head"):
            self.assertGreaterEqual(len(self.sent(attack)), TOO_LARGE_HEAD)

    def outcome(self, answer: bytes, ends: bool = True) -> tuple[str, str]:
        """Of an attack on a server that says no more than this."""
        with socket.create_server((HOST, 0)) as listener:
            is_judged = threading.Event()

            def serve() -> None:
                peer, _ = listener.accept()
                with peer:
                    peer.sendall(answer)
                    if ends:
                        peer.shutdown(socket.SHUT_WR)
                    is_judged.wait()

            server = threading.Thread(target=serve)
            server.start()
            target = SimpleNamespace(port=listener.getsockname()[1], name="it", has_handlers=False, tally=Tally())
            attacker = Attacker(FIRST_NUMBER, "1", target, threading.Event())
            try:
                with mock.patch("wire.ANSWER_SECONDS", 0.2):
                    return attacker.one(self.attacks("smuggled request", count=1)[0])
            finally:
                is_judged.set()
                server.join()

    def test_to_close_is_fine_and_to_stay_silent_is_not(self) -> None:
        self.assertEqual(self.outcome(b""), ("closed", ""))
        outcome, complaint = self.outcome(b"", ends=False)
        self.assertEqual(outcome, "silence")
        self.assertIn("timed out", complaint)

    def test_an_answer_and_something_behind_it_is_let_through(self) -> None:
        refused = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
        self.assertEqual(self.outcome(refused), ("400", ""))
        outcome, complaint = self.outcome(refused + b"HTTP/1.1 200 OK\r\n")
        self.assertEqual(outcome, "no answer")
        self.assertIn("more than the answer", complaint)

    def test_complaints_are_counted_and_do_not_hide_those_of_others(self) -> None:
        tally = Tally()
        for _ in range(TOLD_FAILURES):
            tally.attack("deep JSON", "200", "200 b''")
        tally.attack("deep JSON", "400", "")
        tally.complain("something else")
        self.assertEqual((tally.let_through, tally.attacks["deep JSON"], tally.lost), (TOLD_FAILURES, 21, 0))
        self.assertIn("something else", tally.failures[-1])

    def test_an_attacker_that_fails_is_no_success(self) -> None:
        target = SimpleNamespace(port=0, name="it", has_handlers=False, tally=Tally())
        attacker = Attacker(FIRST_NUMBER, "1", target, threading.Event())
        with mock.patch.object(attacker, "one", side_effect=RuntimeError("odd")), self.assertRaises(RuntimeError):
            attacker.run()
        self.assertEqual(target.tally.wrong, 1)
        self.assertIn("odd", target.tally.failures[0])

    def test_an_answer_nested_deep_is_judged_as_well(self) -> None:
        deep = Answer(200, {}, b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
        for kind in ("deep JSON", "CSV of control characters"):
            self.assertNotEqual(self.attacks(kind, count=1)[0].complaint(deep), "")

    def test_a_seed_makes_the_same_attacks_again(self) -> None:
        for handlers in (False, True):
            makers = [AttackMaker(random.Random(5), FIRST_NUMBER, handlers) for _ in range(2)]
            first, again = ([self.sent(maker.next()) for _ in range(50)] for maker in makers)
            self.assertEqual(first, again)


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
    def received(self, sent: bytes, has_body: bool = True) -> Answer:
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
                return connection.receive(has_body=has_body)
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

    def test_a_closed_connection_is_told_from_nonsense(self) -> None:
        with self.assertRaises(Closed):
            self.received(b"HTTP/1.1 200 OK\r\n")

    def test_the_answer_to_head_announces_a_body_that_does_not_come(self) -> None:
        head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 20\r\n\r\n"
        self.assertEqual(self.received(head, has_body=False).body, b"")
        with self.assertRaises(NoAnswer):
            self.received(head + b"x", has_body=False)


if __name__ == "__main__":
    unittest.main()
