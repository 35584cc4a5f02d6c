"""Several requests at a time. That calls meet, or wait, is seen from barriers and counters, never from time."""

import signal
import socket

from tests.harness.client import wait_until
from tests.harness.constants import HOST
from tests.harness.processes import STOP_SECONDS

from .cases import NO_GEVENT
from .harness import CLIENTS, HandlerCase, gunicorn


class Together(HandlerCase):
    def test_calls_of_a_pair_alternate_on_the_main_thread(self):
        server = self.serve("gevent_patched").wait_ready()
        self.freeze(server)
        answers = self.send(server, [str(number) for number in range(40)])
        # All have passed input_handler, and none has come to output_handler.
        self.wait_in_flight(server, 40)
        self.freeze(server, False)
        self.assertEqual(self.texts(answers), [f"{number} True" for number in range(40)])
        self.check_stops(server)

    def test_greenlets_meet_in_one_handler(self):
        server = self.serve("obedient").wait_ready()
        self.texts(self.send(server, ["import threading; meeting = threading.Barrier(32, timeout=60)"]))
        bodies = [f"meeting.wait() # {number}" for number in range(32)]
        for _ in range(2):
            self.assertEqual(self.texts(self.send(server, bodies)), bodies)
        self.check_stops(server)

    def test_coroutines_of_calls_meet_in_one_loop_where_one_may_cancel_another(self):
        for settings in ({}, {"THREADS": "yes", **gunicorn("gthread", threads=4)}):
            with self.subTest(settings):
                self.check_meets_in_one_loop({"SINGLE": "yes", **settings})

    def check_meets_in_one_loop(self, settings):
        server = self.serve("coroutines", settings=settings).wait_ready()
        self.assertEqual(len(set(self.texts(self.send(server, ["run meet"] * 3)))), 1)
        (hanging,) = self.send(server, ["run hang"])
        cancelled = ["run cancel_others"]
        wait_until(lambda: self.texts(self.send(server, cancelled)) == ["1"], "the other call is not there")
        self.check_error(hanging.result(), 500)
        bodies = [f"body {number}" for number in range(20)]
        self.assertEqual(self.texts(self.send(server, bodies)), bodies)
        self.check_stops(server)
        self.assertNotIn("never awaited", server.log())

    def test_greenlets_overlap_where_they_wait_and_are_answered_before_the_end(self):
        server = self.serve("asks_model").wait_ready()
        self.freeze(server)
        answers = self.send(server, [f"request {number}" for number in range(40)])
        # None is answered before all have asked.
        self.wait_in_flight(server, 40)
        server.process.send_signal(signal.SIGTERM)
        self.wait_for_log(server, "SIGTERM: stopping")
        self.freeze(server, False)
        self.assertEqual(self.texts(answers), [f"request {number}" for number in range(40)])
        self.assertEqual(server.wait(STOP_SECONDS), 0, server.last_lines())
        self.assertIn("cleaned up", server.log())
        self.assertEqual(server.children(), [])

    def test_without_gevent_a_process_runs_one_single_handler_at_a_time(self):
        for missing, name, workers in (("broken_gevent", "gevent", 2), (None, "sync", 1)):
            settings = gunicorn(name, workers=workers)
            server = self.serve("asks_model", missing=missing, settings=settings).wait_ready()
            bodies = ['{"fake": {"delay_ms": 5, "body": "%d"}}' % number for number in range(24)]
            self.assertEqual(self.texts(self.send(server, bodies)), [str(number) for number in range(24)])
            self.assertEqual(self.stat(server, "max_in_flight"), workers)
            self.assertEqual(server.log().count(NO_GEVENT), 1 if missing else 0)
            self.check_stops(server)
            if missing == "broken_gevent":
                self.assertIn("ValueError: greenlet.greenlet size changed", server.log())

    def test_large_bodies_of_eight_clients(self):
        server = self.serve("asks_model").wait_ready()
        bodies = [f"{number} ".encode() * (3 << 20) for number in range(CLIENTS)]
        bodies.append(bytes(range(256)) * (100 << 12))
        for future, body in zip(self.send(server, bodies), bodies):
            self.assertTrue(future.result().body == body, future.result().text[:100])
        self.check_stops(server)

    def test_gthread_keeps_a_request_on_its_thread(self):
        server = self.serve("gthread_local", settings=gunicorn("gthread", threads=4)).wait_ready()
        self.freeze(server)
        answers = self.send(server, [f"request {number}" for number in range(32)])
        # Four wait for the model, each with its thread; for the others there is none.
        self.wait_in_flight(server, 4)
        self.freeze(server, False)
        values = self.values(answers)
        self.assertEqual([value["token"] for value in values], [f"request {number}" for number in range(32)])
        self.assertEqual([value["same"] for value in values], [True] * 32)
        self.assertEqual(len({value["thread"] for value in values}), 4)
        self.assertEqual(self.stat(server, "max_in_flight"), 4)
        self.check_stops(server)

    def test_threads_of_the_script(self):
        server = self.serve("threads").wait_ready()
        (answer,) = self.values(self.send(server, ["[1, 2, 3, 4]"]))
        self.assertEqual(answer["squares"], [1, 4, 9, 16])
        # No call is under way now: the background thread must run all the same.
        for _ in range(2):
            with socket.create_connection((HOST, answer["port"]), timeout=60) as connection:
                self.assertEqual(b"".join(iter(lambda: connection.recv(100), b"")), b"awake")
        self.check_stops(server)
