"""A unittest case with folders, models and servers that are gone after it."""

from __future__ import annotations

import shutil
import signal
import tempfile
import unittest
from pathlib import Path

from .client import Answer, wait_until
from .constants import ATTRIBUTES, JSON, MODELS
from .processes import STOP_SECONDS, Process
from .server import Server


class ServerCase(unittest.TestCase):
    """What a test makes is removed after the test, what `setUpClass` makes after the class, whatever happened."""

    maxDiff = None
    _running: ServerCase | None = None

    def run(self, result=None):
        type(self)._running = self
        try:
            return super().run(result)
        finally:
            type(self)._running = None

    @classmethod
    def clean_up(cls, function, *arguments, **options) -> None:
        """Calls the function after the test that runs, or after the class."""
        add = cls._running.addCleanup if cls._running else cls.addClassCleanup
        add(function, *arguments, **options)

    @classmethod
    def folder(cls) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="sagemaker-tfs-test-")).resolve()
        cls.clean_up(shutil.rmtree, folder, ignore_errors=True)
        return folder

    @classmethod
    def model_dir(cls, *names: str) -> Path:
        """A model directory with some of the models that scripts/make_models.py makes."""
        folder = cls.folder()
        for name in names:
            (folder / name).symlink_to(MODELS / name)
        return folder

    @classmethod
    def empty_model(cls, folder: Path, *versions: str) -> Path:
        """Versions of a model that only the fake model server serves, which does not read them; the folder."""
        for version in versions:
            (folder / version).mkdir(parents=True)
            (folder / version / "saved_model.pb").touch()
        return folder

    @classmethod
    def start(cls, model_dir: Path, **options) -> Server:
        """A server that may not be ready yet."""
        server = Server(model_dir, **options)
        cls.clean_up(server.__exit__)
        return server

    @classmethod
    def invoke(cls, server, body, content_type=JSON, attributes=None, accept=None, path="/invocations", **headers):
        """The answer of a server or container to an inference request."""
        headers = {"Content-Type": content_type, ATTRIBUTES: attributes, "Accept": accept, **headers}
        return server.request("POST", path, body, headers)

    def check(self, answer: Answer, text: str, status: int = 200, content_type: str | None = JSON) -> None:
        """The answer's status, body to the byte and content type."""
        self.assertEqual((answer.status, answer.text), (status, text))
        self.assertEqual(answer.headers.get("Content-Type"), content_type)

    def check_json(self, answer: Answer, value, status: int = 200) -> None:
        """The answer's status and value, however it is laid out."""
        self.assertEqual(answer.status, status, answer.text)
        self.assertEqual(answer.json(), value)

    def check_error(self, answer: Answer, status: int, *parts: str) -> None:
        """The answer's status and parts of its error's text."""
        self.assertEqual(answer.status, status, answer.text)
        for part in parts:
            self.assertIn(part, answer.json()["error"])

    def wait_for_log(self, process: Process, part: str) -> None:
        """Lines may still be on their way through pipes and threads when an answer has come."""
        wait_until(lambda: part in process.log(), lambda: f"no {part!r} in the log{process.last_lines()}")

    def check_refused(self, server: Server, *parts: str, seconds: float = 120) -> list[str]:
        """The server refuses to start: exit code 1, the reason in its log, nothing left; its own messages."""
        self.assertEqual(server.wait(seconds), 1, server.last_lines())
        self.assertEqual(server.children(), [])
        messages = [line for line in server.log().splitlines() if line.startswith("sagemaker-tfs: ")]
        self.assertTrue(messages, server.last_lines())
        for part in parts:
            self.assertIn(part, server.log())
        return messages

    def check_stops(self, server: Server) -> None:
        """SIGTERM ends the server with exit code 0, and it leaves no process behind."""
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(STOP_SECONDS), 0, server.last_lines())
        self.assertEqual(server.children(), [])
