"""Several requests at a time. That calls meet, or wait, is seen from barriers and counters, never from time."""

import os
import signal
import socket

from tests.harness.constants import HOST
from tests.harness.processes import STOP_SECONDS

from .cases import NO_GEVENT
from .harness import CLIENTS, HandlerCase, gunicorn


class Together(HandlerCase):
    def test_calls_of_a_pair_alternate_on_the_main_thread(self):
        for settings in ({}, gunicorn("gevent")):
            server = self.serve("gevent_patched", settings=settings).wait_ready()
            self.freeze(server)
            answers = self.send(server, [str(number) for number in range(40)])
            # All have passed input_handler, and none has come to output_handler.
            self.wait_in_flight(server, 40)
            self.freeze(server, False)
            self.assertEqual(self.texts(answers), [f"{number} True" for number in range(40)])
            self.check_stops(server)

    def test_requests_meet_in_one_handler(self):
        for settings, parties in ((gunicorn("gevent"), 32), (gunicorn("gthread", threads=4), 4)):
            server = self.serve("meeting", settings={"PARTIES": str(parties), **settings}).wait_ready()
            for _ in range(2):
                texts = self.texts(self.send(server, [f"request {number}" for number in range(parties)]))
                places, threads, requests = zip(*(text.split(" ", 2) for text in texts))
                self.assertEqual(sorted(map(int, places)), list(range(parties)))
                self.assertEqual(len(set(threads)), parties)
                self.assertEqual(list(requests), [f"request {number}" for number in range(parties)])
            self.check_stops(server)

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
        for missing, name, workers in (("gevent", "gevent", 2), ("broken_gevent", "gevent", 2), (None, "sync", 1)):
            settings = gunicorn(name, workers=workers)
            server = self.serve("asks_model", missing=missing, settings=settings).wait_ready()
            bodies = ['{"fake": {"delay_ms": 5, "body": "%d"}}' % number for number in range(24)]
            self.assertEqual(self.texts(self.send(server, bodies)), [str(number) for number in range(24)])
            self.assertEqual(self.stat(server, "max_in_flight"), workers)
            self.assertEqual(server.log().count(NO_GEVENT), 1 if missing else 0)
            self.check_stops(server)
            if missing == "broken_gevent":
                self.assertIn("ValueError: greenlet.greenlet size changed", server.log())

    def test_grpc_and_rest_with_eight_clients(self):
        for missing in (None, "gevent"):
            server = self.serve("grpc_channel", tensorflow=True, missing=missing).wait_ready()
            for _ in range(10):
                answers = self.values(self.send(server, [f"[{number}]" for number in range(CLIENTS)]))
                expected = [{"predictions": [number / 2 + 3], "channels": 1} for number in range(CLIENTS)]
                self.assertEqual(answers, expected)
            self.check_stops(server)

    def test_large_bodies_of_eight_clients(self):
        server = self.serve("asks_model").wait_ready()
        bodies = [f"{number} ".encode() * (3 << 20) for number in range(CLIENTS)]
        bodies.append(bytes(range(256)) * (100 << 12))
        for future, body in zip(self.send(server, bodies), bodies):
            self.assertTrue(future.result().body == body, future.result().text[:100])
        self.check_stops(server)

    def test_sync_has_nothing_between_input_and_output(self):
        for workers in (1, 2):
            server = self.serve("sync_global", settings=gunicorn("sync", workers=workers)).wait_ready()
            self.freeze(server)
            # The model takes some time, in which another request would come between.
            body = '{"token": %d, "request": {"fake": {"delay_ms": 5, "body": "{}"}}}'
            answers = self.send(server, [body % number for number in range(48)])
            self.wait_in_flight(server, workers)
            self.freeze(server, False)
            values = self.values(answers)
            self.assertEqual([value["token"] for value in values], list(range(48)))
            self.assertEqual(len({value["pid"] for value in values}), workers)
            self.assertEqual(self.stat(server, "max_in_flight"), workers)
            # An error leaves nothing behind.
            bodies = ["no JSON" if number % 2 else body % number for number in range(20)]
            self.assertEqual([answer.result().status for answer in self.send(server, bodies)], [200, 500] * 10)
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

    def test_two_processes_in_every_worker_class(self):
        # None is answered before both have one, and each goes to the process with the least to do.
        for name, requests in (("gevent", 33), ("gthread", 2), ("sync", 2)):
            with self.subTest(name):
                folder = str(self.folder())
                server = self.serve("processes", settings=gunicorn(name, workers=2)).wait_ready()
                for worker in range(2):
                    self.wait_for_log(server, f"Python worker {worker}: loaded")
                processes = self.texts(self.send(server, [folder] * requests))
                self.assertEqual(sorted(set(processes)), sorted(os.listdir(folder)))
                self.assertEqual(len(set(processes)), 2)
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
