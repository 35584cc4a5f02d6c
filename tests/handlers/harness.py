"""What the tests of this suite share: servers with a script, and requests to them."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.harness.case import ServerCase
from tests.harness.client import wait_until
from tests.harness.constants import FAKE_MODEL_SERVER, JSON, STAND_IN

from .cases import CASES, Case, filled

MISSING = Path(__file__).parent / "missing"
CLIENTS = 8


def gunicorn(worker_class="gevent", **settings):
    """The settings SAGEMAKER_GUNICORN_*, by the rest of their names."""
    settings["worker_class"] = worker_class
    return {f"SAGEMAKER_GUNICORN_{name.upper()}": str(value) for name, value in settings.items()}


class HandlerCase(ServerCase):
    def serve(self, script, options=(), terminal=None, **keys):
        """A server with the script of a case, which may not be ready yet; `keys` are those of a case."""
        return self.start_case(Case(script, **keys), options=list(options), terminal=terminal)

    def start_case(self, case, **options):
        archive = self.model_dir(*case.models)
        # A copy, because Python leaves its caches beside what it imports.
        code = shutil.copytree(CASES / case.script, archive / "code", ignore=shutil.ignore_patterns("__pycache__"))
        for name, text in case.files.items():
            (code / name).write_text(text)
        settings = {"FAKE_TFS_ANSWER": "echo", "TF_CPP_MIN_LOG_LEVEL": "2", **filled(case.settings, {"code": code})}
        if case.missing:
            # Python looks there before it looks among the installed packages.
            settings["PYTHONPATH"] = str(MISSING / case.missing)
        model_server = STAND_IN if case.tensorflow else FAKE_MODEL_SERVER
        server = self.start(archive, model_server=model_server, instances=case.instances, env=settings, **options)
        server.code = code
        return server

    def check_request(self, server, request, mark=""):
        first, last = server.rest_ports[0], server.rest_ports[-1]
        names = {
            "mark": mark,
            "rest_port": first,
            "grpc_port": first - 1,
            # The second of two instances.
            "rest_port_1": last,
            "grpc_port_1": last - 1,
            "code": server.code,
            "python_folder": Path(sys.executable).parent,
            "prefix": sys.prefix,
            "base_prefix": sys.base_prefix,
            "version": "{}.{}".format(*sys.version_info),
        }
        body = filled(request.send, names)
        if isinstance(body, list):
            body = [piece.encode() if isinstance(piece, str) else piece for piece in body]
        answer = self.invoke(server, body, request.type, request.attributes, request.accept, **request.headers)
        self.check_answer(answer, request, body, names)

    def check_answer(self, answer, expected, body, names):
        shown = answer.text[:2000]
        is_error = expected.error is not None or expected.error_with is not None
        self.assertEqual(answer.status, expected.status or (500 if is_error else 200), shown)
        usual_type = JSON if is_error or expected.json is not None else "text/plain"
        self.assertEqual(answer.headers.get("Content-Type"), expected.answer_type or usual_type, shown)
        for name, value in expected.answer_headers.items():
            self.assertEqual(answer.headers.get(name), value, name)
        if expected.error is not None:
            self.assertEqual(answer.json(), {"error": filled(expected.error, names)})
        elif expected.error_with is not None:
            self.assertIn(filled(expected.error_with, names), answer.json()["error"])
        elif expected.json is not None:
            self.assertEqual(answer.json(), filled(expected.json, names))
        else:
            text = body if expected.text is None else filled(expected.text, names)
            self.assertEqual(answer.body, text.encode() if isinstance(text, str) else text)

    def send(self, server, bodies):
        """Sends all at the same time; futures of the answers, in order."""
        threads = ThreadPoolExecutor(len(bodies))
        # Not waited for: the server ends first, and with it all its requests.
        self.addCleanup(threads.shutdown, wait=False)
        return [threads.submit(self.invoke, server, body) for body in bodies]

    def texts(self, futures):
        answers = [future.result() for future in futures]
        self.assertEqual([answer.text for answer in answers if answer.status != 200], [])
        return [answer.text for answer in answers]

    def values(self, futures):
        return [json.loads(text) for text in self.texts(futures)]

    def fake(self, server, method, path, value=None):
        """The fake model server's own routes; its answer's JSON."""
        body = None if value is None else json.dumps(value)
        answer = server.request(method, f"/fake/{path}", body, port=server.rest_ports[0])
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json()

    def stat(self, server, name):
        return self.fake(server, "GET", "stats")[name]

    def freeze(self, server, frozen=True):
        """Makes the fake model server hold all requests, or lets them go."""
        self.fake(server, "POST", "control", {"freeze": frozen})

    def wait_in_flight(self, server, count):
        wait_until(lambda: self.stat(server, "in_flight") == count, f"not {count} requests at the model")
