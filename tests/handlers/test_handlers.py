"""Errors before the model is asked, installed packages, and the debugger."""

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


class Requirements(HandlerCase):
    def test_packages_are_installed_before_the_script_runs(self):
        folder, packages = self.folder(), self.folder()
        info = "tiny_words-1.0.dist-info"
        with zipfile.ZipFile(folder / "tiny_words-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tiny_words.py", 'def join(text):\n    return "-".join(text.split())\n')
            wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        script = "from tiny_words import join\n\nhandler = lambda data, _: (join(data.read().decode()), 'text/plain')\n"
        # Found in a folder instead of on the network, and installed into one instead of into the environment.
        settings = {"PIP_FIND_LINKS": str(folder), "PIP_TARGET": str(packages), "PYTHONPATH": str(packages)}
        files = {"inference.py": script, "requirements.txt": "--no-index\ntiny-words==1.0\n"}
        server = self.serve("evaluates", files=files, settings=settings).wait_ready()
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
