"""Python workers that crash or hang cost their own calls and nothing else."""

import http.client

from tests.harness.client import wait_until
from tests.harness.constants import HOST

from .harness import CLIENTS, HandlerCase, gunicorn

# What the script `obedient` does; its answer is the request.
WAIT = "print('it waits'); time.sleep(1000)"
LOOP = "print('it loops')\nwhile True: pass"
MARKS = [f"mark = {number}" for number in range(CLIENTS)]


class Workers(HandlerCase):
    def check_serves(self, server, *requests):
        """Requests that are sent at the same time are answered."""
        requests = requests or MARKS
        self.assertEqual(self.texts(self.send(server, requests)), list(requests))

    def check_loaded_once(self, server):
        self.assertEqual(server.log().count("Python worker 0: loaded"), 1)

    def wait_for_calls(self, server, count):
        wait_until(lambda: server.log().count("it waits") == count, f"not {count} waiting calls")

    def test_a_single_handler_that_crashes_costs_the_calls_that_had_begun(self):
        server = self.serve("obedient").wait_ready()
        waiting = self.send(server, [WAIT] * CLIENTS)
        self.wait_for_calls(server, CLIENTS)
        for answer in (self.invoke(server, "os._exit(7)"), *[future.result() for future in waiting]):
            self.check_error(answer, 500, "restarted while it ran handler")
        self.check_serves(server)
        self.check_stops(server)

    def test_a_single_handler_that_hangs_costs_no_call_that_had_not_begun(self):
        for missing in (None, "gevent"):
            server = self.serve("obedient", missing=missing, settings=gunicorn(timeout_seconds=2)).wait_ready()
            (hanging,) = self.send(server, [LOOP])
            self.wait_for_log(server, "it loops")
            self.check_serves(server)
            self.check_error(hanging.result(), 504, "handler did not return within 2 s")
            self.check_stops(server)

    def test_a_call_whose_client_hangs_up_before_it_begins_is_not_run(self):
        # One greenlet keeps the thread, so the others do not begin; the large calls are half sent.
        gate = self.folder() / "gate"
        settings = {"SAGEMAKER_TFS_NGINX_LOGLEVEL": "info", "SAGEMAKER_TFS_WORKERS": "1"}
        server = self.serve("obedient", settings=settings).wait_ready()
        (holding,) = self.send(server, [f"print('it holds')\nwhile not os.path.exists({str(gate)!r}): pass"])
        self.wait_for_log(server, "it holds")
        leaving = [http.client.HTTPConnection(HOST, server.port, timeout=60) for _ in range(3)]
        for connection, length in zip(leaving, (30, 300_000, 5 << 20)):
            connection.request("POST", "/invocations", b"print('it left') #".ljust(length, b"x"))
        (staying,) = self.send(server, ["print('it stayed') #".ljust(300_000, "x")])
        for _ in range(10):
            self.assertEqual(server.request("GET", "/ping").status, 200)
        for connection in leaving:
            connection.close()
        wait_until(lambda: server.log().count('invocations" 499') == 3, "not three hang-ups")
        self.assertFalse(holding.done() or staying.done())
        gate.touch()
        self.texts([holding, staying])
        self.check_serves(server, "#".ljust(20), "#".ljust(300_000))
        self.check_stops(server)
        self.assertIn("it stayed", server.log())
        for part in ("it left", "given up", "killed"):
            self.assertNotIn(part, server.log())

    def test_what_others_compute_or_wait_does_not_count_for_a_call(self):
        # All of them are sent at once and compute by turns, or one after the other, after a wait or without: each for
        # less than the limit, all together for much longer.
        turns = "for _ in range(6): compute(0.1); time.sleep(0.001) #"
        for missing, order in (
            (None, "compute(0.3) #"),
            (None, "time.sleep(0.5); compute(0.3) #"),
            (None, turns),
            ("gevent", turns),
        ):
            with self.subTest(order, missing=missing):
                settings = {"SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS": "60", **gunicorn(timeout_seconds=2)}
                server = self.serve("obedient", missing=missing, settings=settings).wait_ready()
                self.check_serves(server, *[f"{order} {number}" for number in range(2 * CLIENTS)])
                self.check_loaded_once(server)
                self.check_stops(server)

    def test_a_call_that_waits_too_long_is_ended(self):
        server = self.serve("obedient", settings=gunicorn(timeout_seconds=2)).wait_ready()
        for is_among_busy_ones in (True, False):
            (waiting,) = self.send(server, [WAIT])
            self.wait_for_log(server, "it waits")
            while is_among_busy_ones and not waiting.done():
                # It had begun when the worker was ended, or it is answered.
                self.assertIn(self.invoke(server, "compute(0.05); time.sleep(0.05)").status, (200, 500))
            self.check_error(waiting.result(), 504, "handler did not return within 2 s")
            self.check_serves(server)
        self.check_stops(server)

    def test_of_calls_that_had_begun_the_one_that_hangs_is_named(self):
        server = self.serve("obedient", settings=gunicorn(timeout_seconds=6)).wait_ready()
        waiting = self.send(server, [WAIT] * 3)
        self.wait_for_calls(server, 3)
        self.check_error(self.invoke(server, LOOP), 504, "handler did not return within 6 s")
        for future in waiting:
            self.check_error(future.result(), 500, "restarted while it ran handler")
        self.check_serves(server)
        self.check_stops(server)

    def test_a_late_answer_of_a_greenlet_is_not_given_to_the_next_request(self):
        settings = {"SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS": "6", **gunicorn(timeout_seconds=6)}
        server = self.serve("obedient", settings=settings).wait_ready()
        (working,) = self.send(server, ["print('it works'); compute(4)"])
        self.wait_for_log(server, "it works")
        # Its turn comes late, so that its deadline passes before its own limit does.
        late = self.invoke(server, "time.sleep(4); print('it is awake')")
        self.check_error(late, 504, "handler did not return in time")
        self.texts([working])
        self.wait_for_log(server, "it is awake")
        for _ in range(100 // CLIENTS):
            self.check_serves(server)
        self.check_loaded_once(server)
        self.check_stops(server)
