"""The demo: starts the server, shows requests as curl lines with their answers, and stops everything.

Run it through scripts/demo.sh, which builds the server and makes the models. The exit code is 0 only when every
answer was the expected one.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import yaml
from PIL import Image

from tests.harness.client import Answer, Failure
from tests.harness.constants import HOST, JSON, ROOT
from tests.harness.processes import START_SECONDS, interrupt_on_signals
from tests.harness.server import Server

HERE = Path(__file__).parent
MODELS = ROOT / ".models"
# The others in .models are for tests; one of them is broken on purpose.
SHOWN = ("demo", "half_plus_three", "image")


@dataclass
class Request:
    """A request of requests.yaml."""

    title: str
    expected: str = ""
    path: str = "/invocations"
    body: str | None = None
    file: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    method: str | None = None
    status: int = 200

    def __post_init__(self):
        if self.body or self.file:
            self.headers = {"Content-Type": JSON, **self.headers}

    def curl(self, port: int) -> list[str]:
        words = ["curl", *(["-X", self.method] if self.method else [])]
        for name, value in self.headers.items():
            words += ["-H", f"{name}: {value}"]
        if self.body or self.file:
            words += ["--data-binary", self.body or f"@{MODELS / self.file}"]
        return [*words, f"http://{HOST}:{port}{self.path}"]

    def send(self, server: Server) -> Answer:
        """Sends the request with curl, as it is shown; without curl in the same way."""
        if not shutil.which("curl"):
            body = (MODELS / self.file).read_bytes() if self.file else self.body
            return server.request(self.method or ("POST" if body else "GET"), self.path, body, self.headers)
        quiet = ["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--write-out", "\n%{http_code}"]
        curl, *words = self.curl(server.port)
        done = subprocess.run([curl, *quiet, *words], capture_output=True)
        if done.returncode:
            raise Failure(f"curl failed: {done.stderr.decode().strip()}{server.last_lines()}")
        body, _, status = done.stdout.rpartition(b"\n")
        return Answer(int(status), {}, body)

    def show(self, server: Server) -> bool:
        """Prints the request, sends it and prints the answer; whether the answer is right."""
        print(f"\n# {self.title}\n{' '.join(map(quoted, self.curl(server.port)))}", flush=True)
        answer = self.send(server)
        for line in answer.text.splitlines() or ["(empty)"]:
            print(f"    {line}")
        pattern = ".*".join(map(re.escape, self.expected.split("...")))
        try:
            found = json.dumps(answer.json(), sort_keys=True) if answer.body else ""
        except ValueError:
            found = answer.text
        right = answer.status == self.status and re.fullmatch(pattern, found) is not None
        if not right:
            print(f"    WRONG: this is not the expected answer (status {answer.status}, expected {self.status})")
        return right


def quoted(word: str) -> str:
    """For bash and zsh, on one line, with quotes only where they are needed."""
    if "'" in word or "\n" in word:
        escaped = word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        return f"$'{escaped}'"
    return shlex.quote(word)


def archive(models: Path, name: str, model: str) -> Path:
    """Lays out a model as SageMaker does in multi-model mode; the folder that may have a handler."""
    folder = models / name / "model"
    folder.mkdir(parents=True)
    (folder / model).symlink_to(MODELS / model)
    return folder


def run(options: argparse.Namespace, scratch: Path) -> bool:
    """Lays out the models, starts the server and shows all requests; whether everything was right."""
    text = Template((HERE / "requests.yaml").read_text()).substitute(models=scratch)
    requests = {mode: [Request(**request) for request in found] for mode, found in yaml.safe_load(text).items()}
    if options.multi_model:
        archive(scratch, "half_plus_three", "half_plus_three")
        code = archive(scratch, "flowers", "demo") / "code"
        code.mkdir()
        shutil.copy(HERE / "flowers.py", code / "inference.py")
        with Server(scratch, executable=options.server, models=10) as server:
            return show_all(options, server, requests["multi_model"])

    for name in SHOWN:
        (scratch / name).symlink_to(MODELS / name)
    Image.new("RGB", (3, 2), "red").save(MODELS / "red.png")
    # Names sort "demo" first; the curl lines are shorter with the other one.
    default = {"SAGEMAKER_TFS_DEFAULT_MODEL_NAME": "half_plus_three"}
    with Server(scratch, executable=options.server, env=default) as server:
        return show_all(options, server, requests["default"])


def show_all(options: argparse.Namespace, server: Server, to_show: list[Request]) -> bool:
    """Waits for the server, shows the requests and ends the server; whether everything was right."""
    variable = "SAGEMAKER_MULTI_MODEL=true " if options.multi_model else ""
    print(variable + " ".join(map(quoted, server.command)), flush=True)
    what = "" if options.multi_model else "importing TensorFlow takes a while, "
    print(f"waiting for /ping ({what}at most {START_SECONDS} s) ...", flush=True)
    server.wait_ready(lambda seconds, text: print(f"    {seconds:.0f} s: {text}", flush=True))
    print(f"ready after {time.monotonic() - server.begin:.1f} s", flush=True)

    right = sum(request.show(server) for request in to_show)
    print(f"\n{right} of {len(to_show)} answers are right", flush=True)

    if options.keep:
        print(f"\nThe server stays up on port {server.port}; its log is {server.log_file.name}.")
        print("The lines above can be sent again from another terminal. Ctrl-C ends it.", flush=True)
        try:
            code = server.process.wait()
            raise Failure(f"the server ended with exit code {code}{server.last_lines()}")
        except KeyboardInterrupt:
            print()
    print("stopping ...", flush=True)
    begin = time.monotonic()
    code = server.stop()
    print(f"stopped after {time.monotonic() - begin:.1f} s, exit code {code}", flush=True)
    return right == len(to_show) and code == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo.sh", description=__doc__.split("\n\n")[0])
    parser.add_argument("--keep", action="store_true", help="stay up until Ctrl-C")
    parser.add_argument("--multi-model", action="store_true", help="load and unload models while the server runs")
    parser.add_argument("--server", type=Path, required=True, help="the sagemaker-tfs executable")
    options = parser.parse_args()

    interrupt_on_signals()
    with tempfile.TemporaryDirectory(prefix="sagemaker-tfs-demo-") as scratch:
        try:
            return 0 if run(options, Path(scratch)) else 1
        except Failure as failure:
            print(f"demo: FAILED: {failure}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("demo: interrupted", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main())
