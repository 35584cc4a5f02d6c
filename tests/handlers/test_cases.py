"""A test for each case, by its name: `-k image_pillow` runs one of them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .cases import CASES, read_cases
from .harness import HandlerCase

ROUNDS = 10


class Cases(HandlerCase):
    def test_no_script_is_without_a_test(self):
        tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
        for script in CASES.iterdir():
            self.assertTrue((script / "requests.yaml").exists() or f'"{script.name}"' in tests, script)

    def run_case(self, case):
        server = self.start_case(case).wait_ready()
        if case.clients is None:
            for request in case.requests:
                with self.subTest(send=str(request.send)[:100]):
                    self.check_request(server, request)
        else:
            self.run_clients(server, case)
        for part in (*case.log, *case.once):
            with self.subTest("in the log", part=part):
                self.wait_for_log(server, part)
        self.check_stops(server)
        log = server.log()
        for part in case.no_log:
            self.assertNotIn(part, log)
        for part in case.once:
            self.assertEqual(log.count(part), 1, part)

    def run_clients(self, server, case):
        def client(number):
            for turn in range(ROUNDS):
                for request in case.requests:
                    self.check_request(server, request, f"client {number} turn {turn}")

        with ThreadPoolExecutor(case.clients) as threads:
            # Each failure is the first one of its client.
            list(threads.map(client, range(case.clients)))


for name, case in read_cases().items():
    setattr(Cases, f"test_{name}", lambda self, case=case: self.run_case(case))
