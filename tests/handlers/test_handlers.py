"""What becomes of the model, packages that are installed, and the debugger."""

import json
import os
import pty
import select
import time
import zipfile

from .harness import HandlerCase, gunicorn

# For a terminal on which nothing comes.
DEBUGGER_SECONDS = 60


class Model(HandlerCase):
    def test_an_error_in_input_handler_asks_no_model(self):
        for function, requests in (("input_handler", 0), ("output_handler", 1)):
            server = self.serve("evaluates", settings={"FUNCTION": function}).wait_ready()
            self.check_error(self.invoke(server, '{}["instances"]'), 500, "'instances'")
            self.assertEqual(self.stat(server, "requests"), requests)

    def test_a_header_cannot_be_added_through_the_content_type(self):
        server = self.serve("evaluates", settings={"FUNCTION": "handler"}).wait_ready()
        answer = self.invoke(server, r'"body", "text/plain\r\nX-Injected: yes"')
        self.assertEqual(answer.status, 500)
        self.assertNotIn("X-Injected", answer.headers)
        self.check(self.invoke(server, '"text", "text/plain"'), "text", content_type="text/plain")

    def test_what_the_model_gets_of_a_form(self):
        folder = self.folder()
        settings = {"FUNCTION": "input_handler", "FAKE_TFS_RECORD": str(folder), "FAKE_TFS_RECORD_REQUESTS": "1"}
        server = self.serve("evaluates", settings=settings).wait_ready()
        bodies = {'{"name": "a b"}': "name=a+b", '"text"': "text", "(b'%d' % n for n in range(3))": "012"}
        self.assertEqual([self.invoke(server, body).text for body in bodies], list(bodies.values()))
        (record,) = folder.glob("requests-*.jsonl")
        requests = [json.loads(line) for line in record.read_text().splitlines()]
        seen = [(request["path"], request["body"]) for request in requests if request["method"] == "POST"]
        self.assertEqual(seen, [("/v1/models/half_plus_three:predict", body) for body in bodies.values()])


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

    def test_packages_are_installed_before_the_script_runs(self):
        folder, packages = self.folder(), self.folder()
        self.wheel(folder)
        # Installed into a folder of this test, not into the environment.
        settings = {"PIP_FIND_LINKS": str(folder), "PIP_TARGET": str(packages), "PYTHONPATH": str(packages)}
        server = self.serve("requirements_new", settings=settings).wait_ready()
        self.check(self.invoke(server, "a b  c"), "a-b-c", content_type="text/plain")
        self.assertIn("Successfully installed tiny-words-1.0", server.log())


class Debugger(HandlerCase):
    def test_breakpoint_gives_a_prompt_and_all_the_time_one_wants(self):
        settings = {"SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS": "1", **gunicorn(timeout_seconds=1)}
        controller, terminal = pty.openpty()
        self.addCleanup(os.close, controller)
        try:
            server = self.serve("debugger", settings=settings, options=["--single-threaded"], terminal=terminal)
        finally:
            os.close(terminal)
        screen = Screen(self, controller)
        server.wait_ready()
        (answer,) = self.send(server, ["a b c"])
        screen.wait_for("(Pdb) ")
        screen.type("p len(words), context.method")
        screen.wait_for("(3, None)")
        screen.type("words.append('typed')")
        # Longer than both limits.
        screen.type("import time; time.sleep(2.5); print('still', 'here')")
        screen.wait_for("still here")
        screen.type("continue")
        self.check(answer.result(), "a b c typed", content_type="text/plain")


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
