"""Python handlers as users write them: the table's scripts, and scripts with several requests at a time."""

import http.client
import json
import os
import pty
import select
import socket
import time
import unittest
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from harness import BROKEN_GEVENT, STOP_SECONDS, WITHOUT_GEVENT, HandlerCase, Script, text
from table import HABITS, REFUSED, SCRIPTS

# A request that waits for others fails after 60 s in the script, so this is for what hangs.
DEBUGGER_SECONDS = 60


class Table(HandlerCase):
    """One test a script, made below."""

    def run_script(self, script):
        server = self.serve(script).wait_ready()
        for row in script.rows:
            with self.subTest(row.name):
                self.check_row(server, row)
        for part in (*script.log, *script.once):
            with self.subTest("in the log", part=part):
                self.wait_for_log(server, part)
        self.ends_well(server)
        log = server.log()
        for part in script.no_log:
            self.assertNotIn(part, log)
        for part in script.once:
            self.assertEqual(log.count(part), 1, part)


CLIENTS = 8
REQUESTS = 10  # of each client
NO_GEVENT = "gevent is not installed, so each worker runs one call of handler at a time"


class EightClients(HandlerCase):
    """Habits of scripts that need the main thread, or nothing between two lines. Two tests a script, made below."""

    def run_script(self, script):
        server = self.serve(script).wait_ready()

        def client(number):
            for request in range(REQUESTS):
                for row in script.rows:
                    self.check_row(server, row, f"client {number} request {request}")

        with ThreadPoolExecutor(CLIENTS) as threads:
            # Each failure is the first one of its client.
            list(threads.map(client, range(CLIENTS)))
        self.ends_well(server)
        self.check_warning(server, script)

    def check_warning(self, server, script):
        warnings = [line for line in server.log().splitlines() if NO_GEVENT in line]
        is_missing = script.settings.items() >= WITHOUT_GEVENT.items()
        self.assertEqual(len(warnings), 1 if is_missing else 0, warnings)
        for warning in warnings:
            self.assertIn(" WARN ", warning)
            for way in ("gevent to requirements.txt", "SAGEMAKER_GUNICORN_WORKERS", "WORKER_CLASS=gthread"):
                self.assertIn(way, warning)


class Refusals(HandlerCase):
    """One test a script that the server does not start with, made below."""

    def run_script(self, refused):
        server = self.serve(Script(refused.folder, settings=refused.settings))
        self.assertEqual(server.wait(120), 1, server.last_lines())
        log = server.log()
        self.assertTrue([line for line in log.splitlines() if line.startswith("sagemaker-tfs: ")], log)
        for part in refused.log:
            self.assertIn(part, log)
        self.assertEqual(server.children(), [])


def add_tests(case, scripts):
    for script in scripts:
        name = f"test_{script.name}"
        assert not hasattr(case, name), name
        setattr(case, name, lambda self, script=script: self.run_script(script))


add_tests(Table, SCRIPTS)
add_tests(Refusals, REFUSED)
add_tests(EightClients, HABITS)
without = [dict(title="without gevent", settings={**script.settings, **WITHOUT_GEVENT}) for script in HABITS]
add_tests(EightClients, [replace(script, **changes) for script, changes in zip(HABITS, without)])


def worker_class(name, **settings):
    return {"SAGEMAKER_GUNICORN_WORKER_CLASS": name} | {f"SAGEMAKER_GUNICORN_{k}": v for k, v in settings.items()}


class Together(HandlerCase):
    """Several requests at a time. That calls meet, or wait, is seen from barriers and counters, never from time."""

    def send(self, server, bodies):
        """Sends all at once; futures of the answers, in order."""
        threads = ThreadPoolExecutor(len(bodies))
        # Not waited for: the server ends first, and with it all its requests.
        self.addCleanup(threads.shutdown, wait=False)
        return [threads.submit(self.invoke, server, body) for body in bodies]

    def texts(self, futures):
        answers = [future.result() for future in futures]
        for answer in answers:
            self.assertEqual(answer.status, 200, answer.text)
        return [answer.text for answer in answers]

    def values(self, futures):
        return [json.loads(one) for one in self.texts(futures)]

    def freeze(self, server, frozen=True):
        """Makes the fake model server hold all requests, or lets them go."""
        self.fake(server, "POST", "control", {"freeze": frozen})

    def wait_in_flight(self, server, count):
        def arrived():
            return self.fake(server, "GET", "stats")["in_flight"] == count

        self.wait_until(arrived, f"{count} requests at the model", server)

    def test_calls_of_the_pair_alternate_on_the_main_thread(self):
        server = self.serve(Script("overlap_pair")).wait_ready()
        self.freeze(server)
        answers = self.send(server, [f'{{"token": {number}}}' for number in range(40)])
        # All have passed input_handler, and none has come to output_handler.
        self.wait_in_flight(server, 40)
        self.freeze(server, False)
        expected = [{"token": number, "threads": 1, "main": True} for number in range(40)]
        self.assertEqual(self.values(answers), expected)
        self.ends_well(server)

    def test_gevent_by_name_is_the_default(self):
        server = self.serve(Script("overlap_pair", settings=worker_class("gevent"))).wait_ready()
        self.freeze(server)
        answers = self.send(server, ['{"token": 1}', '{"token": 2}'])
        self.wait_in_flight(server, 2)
        self.freeze(server, False)
        self.assertEqual([value["token"] for value in self.values(answers)], [1, 2])

    def test_thirty_two_requests_meet_in_one_handler(self):
        server = self.serve(Script("overlap_handler")).wait_ready()
        for _ in range(2):
            answers = self.texts(self.send(server, [f"request {number}" for number in range(32)]))
            places = [int(answer.split()[0]) for answer in answers]
            self.assertEqual(sorted(places), list(range(32)))
            self.assertEqual([answer.split(" ", 1)[1] for answer in answers], [f"request {n}" for n in range(32)])
        self.ends_well(server)

    def test_calls_of_a_pair_come_one_at_a_time_where_they_wait(self):
        server = self.serve(Script("gevent_patched_pair")).wait_ready()
        answers = self.texts(self.send(server, [str(number) for number in range(40)]))
        self.assertEqual(answers, [f"{number} True True" for number in range(40)])
        self.ends_well(server)

    def test_greenlets_overlap_where_they_wait(self):
        server = self.serve(Script("asks_model")).wait_ready()
        self.freeze(server)
        answers = self.send(server, [f"request {number}" for number in range(40)])
        # None is answered before all have asked.
        self.wait_in_flight(server, 40)
        self.freeze(server, False)
        self.assertEqual(self.texts(answers), [f"request {number}" for number in range(40)])
        self.ends_well(server)

    def test_without_gevent_a_single_handler_runs_one_call_at_a_time(self):
        for settings in (WITHOUT_GEVENT, BROKEN_GEVENT):
            server = self.serve(Script("asks_model", settings={**settings, **worker_class("gevent", WORKERS="2")}))
            server.wait_ready()
            bodies = ['{"fake": {"delay_ms": 5, "body": "%d"}}' % number for number in range(24)]
            answers = self.texts(self.send(server, bodies))
            self.assertEqual(answers, [str(number) for number in range(24)])
            self.assertEqual(self.fake(server, "GET", "stats")["max_in_flight"], 2)
            self.assertEqual(server.log().count(NO_GEVENT), 1)
            self.ends_well(server)
        self.assertIn("ValueError: greenlet.greenlet size changed", server.log())

    def test_grpc_and_requests_with_eight_clients(self):
        for settings in ({}, WITHOUT_GEVENT):
            server = self.serve(Script("grpc_and_requests", tensorflow=True, settings=settings)).wait_ready()

            def client(number):
                numbers = range(number, 80, CLIENTS)
                return [self.invoke(server, str(n)).text for n in numbers] == [f"[{n / 2 + 3}]" for n in numbers]

            with ThreadPoolExecutor(CLIENTS) as threads:
                self.assertEqual(list(threads.map(client, range(CLIENTS))), [True] * CLIENTS, server.last_lines())
            self.ends_well(server)

    def test_large_bodies_of_eight_clients(self):
        server = self.serve(Script("asks_model")).wait_ready()
        bodies = [f"{number} ".encode() * (3 << 20) for number in range(CLIENTS)]
        for future, body in zip(self.send(server, bodies), bodies):
            self.assertTrue(future.result().body == body, future.result().text[:100])
        body = bytes(range(256)) * (100 << 12)
        self.assertTrue(self.invoke(server, body).body == body)
        self.ends_well(server)

    def test_calls_that_wait_for_their_turn_do_not_count_as_running(self):
        settings = {"SAGEMAKER_GUNICORN_TIMEOUT_SECONDS": "3"}
        server = self.serve(Script("fallen_handler", settings=settings)).wait_ready()
        # All of them need longer than the limit, each of them does not.
        bodies = [f"work {number}" for number in range(10)]
        self.assertEqual(self.texts(self.send(server, bodies)), bodies)
        self.ends_well(server)

    def test_calls_that_wait_are_answered_before_the_end(self):
        server = self.serve(Script("asks_model")).wait_ready()
        self.freeze(server)
        answers = self.send(server, [f"request {number}" for number in range(CLIENTS)])
        self.wait_in_flight(server, CLIENTS)
        server.process.terminate()
        self.wait_for_log(server, "SIGTERM: stopping")
        self.freeze(server, False)
        self.assertEqual(self.texts(answers), [f"request {number}" for number in range(CLIENTS)])
        self.assertEqual(server.wait(STOP_SECONDS), 0, server.last_lines())
        self.assertIn("cleaned up", server.log())
        self.assertEqual(server.children(), [])

    def test_sync_has_nothing_between_input_and_output(self):
        server = self.serve(Script("sync_global", settings=worker_class("sync"))).wait_ready()
        # The model takes some time, in which another request would come between.
        body = '{"token": %d, "request": {"fake": {"delay_ms": 5, "body": "{}"}}}'
        answers = self.values(self.send(server, [body % number for number in range(48)]))
        self.assertEqual([answer["token"] for answer in answers], list(range(48)))
        self.assertEqual(len({answer["pid"] for answer in answers}), 1)
        self.assertEqual(self.fake(server, "GET", "stats")["max_in_flight"], 1)
        self.ends_well(server)

    def test_sync_goes_on_after_errors(self):
        server = self.serve(Script("sync_global", settings=worker_class("sync"))).wait_ready()
        answers = self.send(
            server, ["no JSON" if number % 2 else '{"request": 1, "token": 1}' for number in range(20)]
        )
        self.assertEqual([answer.result().status for answer in answers], [200, 500] * 10)

    def test_sync_with_two_processes(self):
        server = self.serve(Script("sync_global", settings=worker_class("sync", WORKERS="2"))).wait_ready()
        self.freeze(server)
        answers = self.send(server, [f'{{"token": {number}, "request": {{}}}}' for number in range(12)])
        self.wait_in_flight(server, 2)
        self.freeze(server, False)
        values = self.values(answers)
        self.assertEqual([value["token"] for value in values], list(range(12)))
        self.assertEqual(len({value["pid"] for value in values}), 2)
        self.assertEqual(self.fake(server, "GET", "stats")["max_in_flight"], 2)
        self.ends_well(server)

    def test_sync_runs_one_handler_at_a_time(self):
        server = self.serve(Script("sync_handler", settings=worker_class("sync"))).wait_ready()
        body = '{"fake": {"delay_ms": 5, "body": "%d"}}'
        answers = self.texts(self.send(server, [body % number for number in range(24)]))
        self.assertEqual(answers, [str(number) for number in range(24)])
        self.assertEqual(self.fake(server, "GET", "stats")["max_in_flight"], 1)

    def test_gthread_keeps_a_request_on_its_thread(self):
        server = self.serve(Script("gthread_local", settings=worker_class("gthread", THREADS="4"))).wait_ready()
        values = self.values(self.send(server, [f"request {number}" for number in range(32)]))
        self.assertEqual([value["token"] for value in values], [f"request {number}" for number in range(32)])
        self.assertEqual([value["same"] for value in values], [True] * 32)
        self.assertEqual(len({value["thread"] for value in values}), 4)
        self.ends_well(server)

    def test_gthread_keeps_a_request_on_its_thread_while_the_model_works(self):
        server = self.serve(Script("gthread_local", settings=worker_class("gthread", THREADS="4"))).wait_ready()
        self.freeze(server)
        answers = self.send(server, [f"request {number}" for number in range(8)])
        # Four wait for the model, each with its thread; for the others there is none.
        self.wait_in_flight(server, 4)
        self.freeze(server, False)
        self.assertEqual([value["same"] for value in self.values(answers)], [True] * 8)
        self.assertEqual(self.fake(server, "GET", "stats")["max_in_flight"], 4)

    def test_gthread_runs_a_single_handler_on_its_threads(self):
        server = self.serve(Script("gthread_handler", settings=worker_class("gthread", THREADS="4"))).wait_ready()
        answers = self.texts(self.send(server, [f"request {number}" for number in range(16)]))
        self.assertEqual(len({answer.split()[0] for answer in answers}), 4)
        self.assertEqual([answer.split(" ", 1)[1] for answer in answers], [f"request {n}" for n in range(16)])

    def test_two_processes_in_every_worker_class(self):
        # None is answered before both have one, and each goes to the process with the least to do.
        for name, requests in (("gevent", 33), ("gthread", 2), ("sync", 2)):
            with self.subTest(name):
                folder = str(self.folder())
                server = self.serve(Script("processes", settings=worker_class(name, WORKERS="2"))).wait_ready()
                for worker in ("0", "1"):
                    self.wait_for_log(server, f"Python worker {worker}: loaded")
                processes = self.texts(self.send(server, [folder] * requests))
                self.assertEqual(sorted(set(processes)), sorted(os.listdir(folder)))
                self.assertEqual(len(set(processes)), 2)
                self.ends_well(server)

    def test_threads_of_the_script(self):
        server = self.serve(Script("threads")).wait_ready()
        (answer,) = self.values(self.send(server, ["[1, 2, 3, 4]"]))
        self.assertEqual(answer["squares"], [1, 4, 9, 16])
        # No call is under way now: the background thread must run all the same.
        self.assertEqual(self.read_all(answer["port"]), b"awake")
        self.assertEqual(self.read_all(answer["port"]), b"awake")
        self.ends_well(server)

    def read_all(self, port):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            return b"".join(iter(lambda: connection.recv(100), b""))


class Model(HandlerCase):
    """What becomes of the model when handlers do not call it."""

    def test_an_error_in_input_handler_asks_no_model(self):
        server = self.serve(Script("exceptions")).wait_ready()
        self.assertEqual(self.invoke(server, "value_error").status, 500)
        self.assertEqual(self.fake(server, "GET", "stats")["requests"], 0)
        self.assertEqual(self.invoke(server, "output:value_error").status, 500)
        self.assertEqual(self.fake(server, "GET", "stats")["requests"], 1)

    def test_a_header_cannot_be_added_through_the_content_type(self):
        server = self.serve(Script("output_results")).wait_ready()
        answer = self.invoke(server, "line break in type")
        self.assertNotIn("X-Injected", answer.headers)
        self.check_answer(server, self.invoke(server, "tuple"), text("text"))

    def test_what_the_model_gets_of_a_form(self):
        folder = self.folder()
        settings = {"FAKE_TFS_RECORD": str(folder), "FAKE_TFS_RECORD_REQUESTS": "1"}
        server = self.serve(Script("input_results", settings=settings)).wait_ready()
        for kind in ("dict", "str", "generator"):
            self.assertEqual(self.invoke(server, kind).status, 200)
        (record,) = folder.glob("requests-*.jsonl")
        requests = [json.loads(line) for line in record.read_text().splitlines()]
        requests = [request for request in requests if request["method"] == "POST"]
        self.assertEqual([request["path"] for request in requests], ["/v1/models/half_plus_three:predict"] * 3)
        self.assertEqual([request["body"][:5] for request in requests], ["name=", '{"grö', "[0,1,"])


class Hosts(HandlerCase):
    """Processes of handlers that fall or hang cost their own requests and nothing else."""

    def state(self, server):
        answer = self.invoke(server, "state")
        self.assertEqual(answer.status, 200, answer.text)
        return json.loads(answer.body)

    def falls(self, server, what):
        before = self.state(server)
        answer = self.invoke(server, what)
        self.assertGreaterEqual(answer.status, 500, answer.text)
        self.assertIsInstance(json.loads(answer.body)["error"], str)
        after = self.state(server)
        self.assertNotEqual(after["pid"], before["pid"])
        self.assertEqual(after["count"], 1)  # the script was run anew

    def test_a_process_that_ends_is_replaced(self):
        server = self.serve(Script("fallen_host")).wait_ready()
        for what in ("exit", "segfault", "kill"):
            with self.subTest(what):
                self.falls(server, what)
        self.assertEqual(server.request("GET", "/ping").status, 200)
        self.ends_well(server)

    def test_a_single_handler_that_crashes_costs_the_calls_that_had_begun(self):
        server = self.serve(Script("fallen_handler")).wait_ready()
        with ThreadPoolExecutor(CLIENTS) as threads:
            for count, what in ((CLIENTS, "exit"), (2 * CLIENTS, "segfault")):
                waiting = [threads.submit(self.invoke, server, "wait") for _ in range(CLIENTS)]
                self.wait_until(lambda: server.log().count("it waits") == count, "waiting calls", server)
                for answer in (self.invoke(server, what), *[future.result() for future in waiting]):
                    self.assertEqual(answer.status, 500, answer.text)
                    self.assertIn("restarted while it ran handler", answer.text)
                self.check_answer(server, self.invoke(server, "mark"), text("mark"))
        self.ends_well(server)

    def test_a_single_handler_that_hangs_costs_no_call_that_had_not_begun(self):
        settings = {"SAGEMAKER_GUNICORN_TIMEOUT_SECONDS": "2"}
        for gevent in ({}, WITHOUT_GEVENT):
            server = self.serve(Script("fallen_handler", settings={**settings, **gevent})).wait_ready()
            with ThreadPoolExecutor(CLIENTS + 1) as threads:
                hanging = threads.submit(self.invoke, server, "loop")
                self.wait_for_log(server, "it loops")
                marks = [f"mark {number}" for number in range(CLIENTS)]
                answers = list(threads.map(lambda mark: self.invoke(server, mark), marks))
            self.assertEqual(hanging.result().status, 504)
            self.assertIn("handler did not return within 2 s", hanging.result().text)
            self.assertEqual([answer.text for answer in answers], marks)
            self.ends_well(server)

    def test_a_call_whose_client_hangs_up_before_it_begins_is_not_run(self):
        # One greenlet keeps the thread, so the others do not begin; the large calls are half sent.
        gate = self.folder() / "gate"
        settings = {"SAGEMAKER_TFS_NGINX_LOGLEVEL": "info", "SAGEMAKER_TFS_WORKERS": "1"}
        server = self.serve(Script("fallen_handler", settings=settings)).wait_ready()
        with ThreadPoolExecutor(2) as threads:
            holding = threads.submit(self.invoke, server, f"hold {gate}")
            self.wait_for_log(server, "it holds")
            leaving = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for _ in range(3)]
            for connection, length in zip(leaving, (10, 300_000, 5 << 20)):
                connection.request("POST", "/invocations", b"note leaving".ljust(length, b"x"))
            staying = threads.submit(self.invoke, server, "note staying".ljust(300_000, "x"))
            for _ in range(10):
                self.assertEqual(server.request("GET", "/ping").status, 200)
            for connection in leaving:
                connection.close()
            self.wait_until(lambda: server.log().count('invocations" 499') == 3, "hang-ups", server)
            self.assertFalse(holding.done() or staying.done())
            gate.touch()
            self.assertEqual(holding.result().status, 200)
            self.assertEqual(staying.result().status, 200)
        for length in (20, 300_000):
            self.check_answer(server, self.invoke(server, "x" * length), text("x" * length))
        self.ends_well(server)
        self.assertIn("noted: note staying", server.log())
        for part in ("leaving", "given up", "killed"):
            self.assertNotIn(part, server.log())

    def test_what_others_compute_does_not_count_for_a_call(self):
        # All begin at once, wait, and compute one after the other, or by turns: each for less than the limit, all
        # together for much longer.
        for settings, what in (({}, "queue"), ({}, "turns"), (WITHOUT_GEVENT, "turns")):
            with self.subTest(what, settings=settings):
                limits = {
                    "SAGEMAKER_GUNICORN_TIMEOUT_SECONDS": "2",
                    "SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS": "60",
                }
                server = self.serve(Script("fallen_handler", settings={**limits, **settings})).wait_ready()
                bodies = [f"{what} {number}" for number in range(2 * CLIENTS)]
                with ThreadPoolExecutor(len(bodies)) as threads:
                    answers = list(threads.map(lambda body: self.invoke(server, body), bodies))
                self.assertEqual([answer.text for answer in answers], bodies)
                self.assertEqual(server.log().count("Python worker 0: loaded"), 1)
                self.ends_well(server)

    def test_a_call_that_waits_too_long_among_busy_ones_is_ended(self):
        settings = {"SAGEMAKER_GUNICORN_TIMEOUT_SECONDS": "2"}
        server = self.serve(Script("fallen_handler", settings=settings)).wait_ready()
        with ThreadPoolExecutor(2) as threads:
            waiting = threads.submit(self.invoke, server, "wait")
            self.wait_for_log(server, "it waits")
            while not waiting.done():
                # It had begun when the worker was ended, or it is answered.
                self.assertIn(self.invoke(server, "half").status, (200, 500))
        self.assertEqual(waiting.result().status, 504)
        self.assertIn("handler did not return within 2 s", waiting.result().text)
        self.ends_well(server)

    def test_of_calls_that_had_begun_the_one_that_hangs_is_named(self):
        settings = {"SAGEMAKER_GUNICORN_TIMEOUT_SECONDS": "6"}
        server = self.serve(Script("fallen_handler", settings=settings)).wait_ready()
        with ThreadPoolExecutor(CLIENTS) as threads:
            waiting = [threads.submit(self.invoke, server, "wait") for _ in range(3)]
            self.wait_until(lambda: server.log().count("it waits") == 3, "waiting calls", server)
            hanging = self.invoke(server, "loop")
            self.assertEqual(hanging.status, 504, hanging.text)
            self.assertIn("handler did not return within 6 s", hanging.text)
            for answer in (future.result() for future in waiting):
                self.assertEqual(answer.status, 500, answer.text)
                self.assertIn("restarted while it ran handler", answer.text)
            self.check_answer(server, self.invoke(server, "mark"), text("mark"))
        self.ends_well(server)

    def test_a_late_answer_of_a_greenlet_is_not_given_to_the_next_request(self):
        limits = {"SAGEMAKER_GUNICORN_TIMEOUT_SECONDS": "6", "SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS": "6"}
        server = self.serve(Script("fallen_handler", settings=limits)).wait_ready()
        with ThreadPoolExecutor(CLIENTS) as threads:
            working = threads.submit(self.invoke, server, "work long")
            self.wait_for_log(server, "it works")
            # Its turn comes late, so that its deadline passes before its own limit does.
            late = self.invoke(server, "doze")
            self.assertEqual(late.status, 504, late.text)
            self.assertIn("handler did not return in time", late.text)
            self.check_answer(server, working.result(), text("work long"))
            self.wait_for_log(server, "it is awake")
            marks = [f"mark {number}" for number in range(100)]
            answers = list(threads.map(lambda mark: self.invoke(server, mark), marks))
        self.assertEqual([answer.text for answer in answers], marks)
        self.assertEqual(server.log().count("Python worker 0: loaded"), 1)
        self.ends_well(server)

    def test_a_call_that_waits_too_long_is_ended(self):
        settings = {"SAGEMAKER_GUNICORN_TIMEOUT_SECONDS": "2"}
        server = self.serve(Script("fallen_handler", settings=settings)).wait_ready()
        self.assertEqual(self.invoke(server, "wait").status, 504)
        self.check_answer(server, self.invoke(server, "mark"), text("mark"))
        self.ends_well(server)

    def test_a_call_that_hangs_is_ended(self):
        settings = {"SAGEMAKER_GUNICORN_TIMEOUT_SECONDS": "2"}
        server = self.serve(Script("fallen_host", settings=settings)).wait_ready()
        self.falls(server, "loop")
        self.ends_well(server)


class Requirements(HandlerCase):
    def wheel(self, folder):
        """A package of one module, to be found in `folder` instead of on the network."""
        info = "tiny_words-1.0.dist-info"
        files = {
            "tiny_words.py": 'def join(text):\n    return "-".join(text.split())\n',
            f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
        with zipfile.ZipFile(folder / "tiny_words-1.0-py3-none-any.whl", "w") as wheel:
            for name, content in files.items():
                wheel.writestr(name, content)

    def test_beside_lib_they_are_ignored_with_a_warning(self):
        server = self.serve(Script("lib_modules")).wait_ready()
        warnings = [line for line in server.log().splitlines() if "requirements.txt" in line]
        self.assertEqual(len(warnings), 1, server.last_lines())
        self.assertIn("WARN", warnings[0])
        self.assertIn("lib", warnings[0])

    def test_packages_are_installed_before_the_script_runs(self):
        folder, packages = self.folder(), self.folder()
        self.wheel(folder)
        # Installed into a folder of this test, not into the environment.
        settings = {"PIP_FIND_LINKS": str(folder), "PIP_TARGET": str(packages), "PYTHONPATH": str(packages)}
        server = self.serve(Script("requirements_new", settings=settings)).wait_ready()
        self.check_answer(server, self.invoke(server, "a b  c"), text("a-b-c"))
        self.assertIn("Successfully installed tiny-words-1.0", server.log())


class Debugger(HandlerCase):
    def test_breakpoint_gives_a_prompt_and_all_the_time_one_wants(self):
        limits = {"SAGEMAKER_GUNICORN_TIMEOUT_SECONDS": "1", "SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS": "1"}
        controller, terminal = pty.openpty()
        self.addCleanup(os.close, controller)
        try:
            script = Script("debugger", settings=limits)
            server = self.serve(script, options=["--single-threaded"], terminal=terminal)
        finally:
            os.close(terminal)
        screen = Screen(self, controller)
        server.wait_ready()
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(self.invoke, server, "a b c")
            screen.wait_for("(Pdb) ")
            screen.type("p len(words), context.method")
            screen.wait_for("(3, None)")
            screen.type("words.append('typed')")
            # Longer than both limits.
            screen.type("import time; time.sleep(2.5); print('still', 'here')")
            screen.wait_for("still here")
            screen.type("continue")
            self.check_answer(server, answer.result(), text("a b c typed"))


class Screen:
    """A terminal that a test reads and types on."""

    def __init__(self, case, controller):
        self.case, self.controller, self.text = case, controller, ""

    def wait_for(self, part):
        """Reads until `part` is there, and forgets all up to it."""
        end = time.monotonic() + DEBUGGER_SECONDS
        while part not in self.text:
            ready, _, _ = select.select([self.controller], [], [], max(0, end - time.monotonic()))
            if not ready:
                self.case.fail(f"no {part!r} on the terminal:\n{self.text}")
            self.text += os.read(self.controller, 4096).decode(errors="replace")
        self.text = self.text.partition(part)[2]

    def type(self, line):
        os.write(self.controller, f"{line}\n".encode())


if __name__ == "__main__":
    unittest.main()
