"""Fixtures of this suite: how the table's lines are written, and a server for a script.

A script is a folder of `scripts/`, laid out as the `code` folder of a model archive. It runs in the real
executable. Behind that is the fake model server, which answers with the request it got, or, where the model's
answer matters, the local model server with TensorFlow.
"""

import json
import os
import pathlib
import shutil
import sys
import time
from dataclasses import dataclass, field
from string import Template

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from real_tensorflow.harness import CSV, FAKE_MODEL_SERVER, JSON, JSON_LINES, PREDICTIONS, Case  # noqa: E402
from server import STAND_IN, STOP_SECONDS  # noqa: E402  (found through that harness)

__all__ = ["CSV", "JSON", "JSON_LINES", "PREDICTIONS"]  # for the table

SCRIPTS = HERE / "scripts"
# Handlers run in the `python3` that is found on PATH: here the one next to the Python that runs the tests.
# In front of what is installed: a gevent that cannot be imported.
WITHOUT_GEVENT = {"PYTHONPATH": str(HERE / "without_gevent")}
BROKEN_GEVENT = {"PYTHONPATH": str(HERE / "broken_gevent")}
PYTHON_FOLDER = pathlib.Path(sys.executable).parent
# A line may still be on its way through pipes and threads when the answer is there.
LOG_SECONDS = 30

ENVIRONMENT = {
    "PATH": f"{PYTHON_FOLDER}{os.pathsep}{os.environ['PATH']}",
    # Nothing here goes further than this machine, and no proxy stands between.
    "NO_PROXY": "localhost,127.0.0.1",
    "no_proxy": "localhost,127.0.0.1",
    # Empty counts as unset: output must be unbuffered without the tester's own settings.
    "PYTHONUNBUFFERED": "",
    "PYTHONIOENCODING": "",
    "PYTHONUTF8": "",
    "PYTHONPATH": "",
}


@dataclass(frozen=True)
class Answer:
    """What is expected. Of `body` (to the byte), `value` (as JSON) and `part` (of the error), the given one counts.

    In texts, `$mark` is what tells a request of several clients from all others; `$rest_port`, `$grpc_port`, `$rest_port_1` and `$grpc_port_1` (the second instance's), `$code` and
    `$python_folder` stand for what they are in this run.
    """

    body: bytes | str | None = None
    value: object = None
    part: str | None = None
    content_type: str = JSON
    status: int = 200


def text(body, content_type="text/plain"):
    """The body to the byte."""
    return Answer(body=body, content_type=content_type)


def json_value(value, content_type=JSON):
    """The body's value, however it is laid out."""
    return Answer(value=value, content_type=content_type)


def error(message, status=500):
    """`{"error": message}`"""
    return Answer(value={"error": message}, status=status)


def error_with(part, status=500):
    """`{"error": ...}` with a text that holds `part`."""
    return Answer(part=part, status=status)


@dataclass(frozen=True)
class Row:
    """A request and its answer."""

    name: str
    request: bytes | str | list  # a list is sent in chunks
    answer: Answer
    content_type: str | None = JSON
    accept: str | None = None
    attributes: str | None = None


@dataclass(frozen=True)
class Script:
    """A script with the requests that one server gets, one after the other."""

    folder: str
    rows: list = field(default_factory=list)
    #: Tells entries with the same folder apart.
    title: str = ""
    models: tuple = ("half_plus_three",)
    #: Whether the models run, on TensorFlow; else requests come back from the fake model server.
    tensorflow: bool = False
    settings: dict = field(default_factory=dict)
    instances: int = 1
    #: Parts of lines that must be in the log, and such that must not.
    log: tuple = ()
    no_log: tuple = ()
    #: Parts that must be there exactly once.
    once: tuple = ()

    @property
    def name(self):
        return f"{self.folder} {self.title}".strip().replace(" ", "_")


@dataclass(frozen=True)
class Refused:
    """A script that the server refuses to start with, and parts of what it must say."""

    folder: str
    log: tuple
    settings: dict = field(default_factory=dict)

    @property
    def name(self):
        return self.folder


class HandlerCase(Case):
    """A test case with servers that run handlers."""

    def serve(self, script, **options):
        """A server with a script, that may not be ready yet; it ends with the test."""
        archive = self.model_dir(*script.models)
        code = archive / "code"
        # A copy, for Python leaves its caches beside what it imports.
        shutil.copytree(SCRIPTS / script.folder, code, ignore=shutil.ignore_patterns("__pycache__"))
        settings = {"FAKE_TFS_ANSWER": "echo", "TF_CPP_MIN_LOG_LEVEL": "2", **ENVIRONMENT, **script.settings}
        server = self.start(
            archive,
            model_server=STAND_IN if script.tensorflow else FAKE_MODEL_SERVER,
            instances=script.instances,
            env={name: filled(value, {"code": str(code)}) for name, value in settings.items()},
            **options,
        )
        self.addCleanup(server.stop)
        server.code = code
        return server

    def ends_well(self, server):
        """Ends the server, which must leave no process behind."""
        server.process.terminate()
        self.assertEqual(server.wait(STOP_SECONDS), 0, server.last_lines())
        self.assertEqual(server.children(), [])

    def check_row(self, server, row, mark=""):
        request = filled(row.request, {"mark": mark})
        answer = self.invoke(server, request, row.content_type, row.attributes, row.accept)
        self.check_answer(server, answer, row.answer, mark)

    def check_answer(self, server, answer, expected, mark=""):
        first, last = server.rest_ports[0], server.rest_ports[-1]
        places = {
            "mark": mark,
            "rest_port": str(first),
            "grpc_port": str(first - 1),
            "rest_port_1": str(last),
            "grpc_port_1": str(last - 1),
            "code": str(server.code),
            "python_folder": str(PYTHON_FOLDER),
        }
        shown = answer.text[:2000]
        self.assertEqual(answer.status, expected.status, shown)
        self.assertEqual(answer.headers.get("Content-Type"), filled(expected.content_type, places), shown)
        if expected.body is not None:
            body = filled(expected.body, places)
            self.assertEqual(answer.body, body.encode() if isinstance(body, str) else body)
        if expected.value is not None:
            self.assertEqual(json.loads(answer.body), filled(expected.value, places))
        if expected.part is not None:
            self.assertIn(expected.part, json.loads(answer.body)["error"])

    def wait_for_log(self, server, part):
        self.wait_until(lambda: part in server.log(), f"{part!r} in the log", server)

    def wait_until(self, condition, what, server, seconds=LOG_SECONDS):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                self.fail(f"no {what} after {seconds} s{server.last_lines()}")
            time.sleep(0.02)

    def fake(self, server, method, path, value=None):
        """The fake model server's own routes; its answer's JSON."""
        body = None if value is None else json.dumps(value)
        answer = server.request(method, f"/fake/{path}", body, port=server.rest_ports[0])
        self.assertEqual(answer.status, 200, answer.text)
        return json.loads(answer.body)


def filled(value, places):
    """`value` with its `$names` filled in, in all texts it is made of."""
    if isinstance(value, str):
        return Template(value).safe_substitute(places)
    if isinstance(value, dict):
        return {key: filled(item, places) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, places) for item in value]
    return value
