"""The demo: starts the server, shows requests as curl lines with their answers, and stops everything.

Run it through scripts/demo.sh, which builds the server and makes the models. The exit code is 0 only when every
answer was the expected one.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.harness.client import Answer, Failure
from tests.harness.constants import ATTRIBUTES, CSV, HOST, INSTANCES, JSON, JSON_LINES, ROOT, TARGET_MODEL
from tests.harness.processes import START_SECONDS, interrupt_on_signals
from tests.harness.server import Server

MODELS = ROOT / ".models"
# The others in .models are for tests; one of them is broken on purpose.
SHOWN = ("demo", "half_plus_three", "image")
NUMBERS = "1.0\n2.0\n5.0\n"
FLOWERS = "5.1,3.5,1.4,0.2\n6.9,3.1,5.9,2.1\n"


@dataclass
class Request:
    title: str
    # Whether the answer's JSON is right; None stands for an empty body.
    is_right: Callable[[object], bool]
    path: str = "/invocations"
    # The body itself, or a file with it. Without one the request is a GET unless `method` says otherwise.
    body: str | Path | None = None
    content_type: str = JSON
    accept: str | None = None
    attributes: str | None = None
    target: str | None = None
    method: str | None = None
    status: int = 200

    def headers(self) -> dict[str, str]:
        headers = {"Content-Type": None if self.body is None else self.content_type, "Accept": self.accept}
        headers |= {ATTRIBUTES: self.attributes, TARGET_MODEL: self.target}
        return {name: value for name, value in headers.items() if value}

    def curl(self, port: int) -> list[str]:
        words = ["curl", *(["-X", self.method] if self.method else [])]
        for name, value in self.headers().items():
            words += ["-H", f"{name}: {value}"]
        if self.body is not None:
            words += ["--data-binary", f"@{self.body}" if isinstance(self.body, Path) else self.body]
        return [*words, f"http://{HOST}:{port}{self.path}"]

    def send(self, server: Server) -> Answer:
        """Sends the request with curl, as it is shown; without curl in the same way."""
        if not shutil.which("curl"):
            body = self.body.read_bytes() if isinstance(self.body, Path) else self.body
            method = self.method or ("GET" if body is None else "POST")
            return server.request(method, self.path, body, self.headers())
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
        try:
            right = answer.status == self.status and self.is_right(answer.json() if answer.body else None)
        except (ValueError, LookupError, TypeError):
            right = False
        if not right:
            print(f"    WRONG: this is not the expected answer (status {answer.status}, expected {self.status})")
        return right


def exactly(value):
    return lambda answer: answer == value


def predictions(*expected):
    return exactly({"predictions": list(expected)})


def is_available(answer) -> bool:
    states = {version["version"]: version["state"] for version in answer["model_version_status"]}
    return states == {"123": "AVAILABLE", "124": "AVAILABLE"}


def requests(picture: Path) -> list[Request]:
    half = predictions(3.5, 4.0, 5.5)
    return [
        Request("Is it there? (200 with an empty body)", exactly(None), "/ping"),
        Request("JSON as TensorFlow Serving takes it; the model computes x / 2 + 3", half, body=INSTANCES),
        Request("JSON lines: a line is an instance", half, content_type=JSON_LINES, body=NUMBERS),
        Request(
            "CSV: a row is an instance; with this Accept the answer is one line",
            half,
            body=NUMBERS,
            content_type=CSV,
            accept=JSON,
        ),
        Request(
            "A certain version of a certain model",
            predictions(3.5),
            attributes="tfs-model-name=half_plus_three,tfs-model-version=123",
            body='{"instances": [1.0]}',
        ),
        Request(
            "Regression, which takes examples",
            exactly({"results": [3.5, 4.0]}),
            attributes="tfs-method=regress",
            body='{"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]}',
        ),
        Request(
            "A model trained on this machine: kinds of flowers by four measures, from CSV",
            lambda answer: [row["label"] for row in answer["predictions"]] == ["small", "large"],
            content_type=CSV,
            attributes="tfs-model-name=demo",
            body=FLOWERS,
        ),
        Request(
            "A picture as it is: the model answers with its shape and mean brightness",
            predictions({"shape": [2, 3, 3], "mean": 85.0}),
            content_type="image/png",
            attributes="tfs-model-name=image",
            body=picture,
        ),
        Request(
            "A mistake: TensorFlow Serving's own words, with status 400",
            lambda answer: "is not of expected type: float" in answer["error"],
            status=400,
            body='{"instances": ["one"]}',
        ),
        Request("TensorFlow Serving's own API", is_available, "/tfs/v1/models/half_plus_three"),
    ]


def multi_model_requests(models: Path) -> list[Request]:
    half, flowers = "half_plus_three", "flowers"
    numbers = predictions(3.5, 4.0, 5.5)

    def load(title: str, name: str, **options) -> Request:
        body = json.dumps({"model_name": name, "url": str(models / name / "model")})
        options.setdefault("is_right", lambda answer: answer["success"].startswith(f"Successfully loaded model {name}"))
        return Request(title, path="/models", body=body, **options)

    def listed(*names):
        return lambda answer: [model["modelName"] for model in answer["models"]] == list(names)

    return [
        Request("Is it there? (200; no model is loaded yet)", exactly(None), "/ping"),
        load("Load a model: a TensorFlow Serving process of its own starts", half),
        load("Load another, which has a Python handler of its own", flowers),
        Request("What is loaded?", listed(flowers, half), "/models"),
        Request("One model, with the states of its versions in TensorFlow Serving", is_available, f"/models/{half}"),
        Request("Ask one; it computes x / 2 + 3", numbers, f"/models/{half}/invoke", body=INSTANCES),
        Request(
            "Ask the other, through its handler",
            exactly({"model": flowers, "flowers": ["small", "large"]}),
            f"/models/{flowers}/invoke",
            content_type=CSV,
            body=FLOWERS,
        ),
        Request(
            "The same at /invocations: a header names the model", numbers, body=NUMBERS, content_type=CSV, target=half
        ),
        load(
            "A mistake: it is there already (409)",
            half,
            status=409,
            is_right=exactly({"error": f"Model {half} is already loaded."}),
        ),
        Request(
            "Unload it: its process ends, its ports are free",
            exactly({"success": f"Successfully unloaded model {half}."}),
            f"/models/{half}",
            method="DELETE",
        ),
        Request(
            "It is gone (404)",
            exactly({"error": f"Model {half} is not loaded yet."}),
            f"/models/{half}/invoke",
            status=404,
            body='{"instances": [1.0]}',
        ),
        Request("What is left", listed(flowers), "/models"),
        load("Load it again", half),
    ]


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
    if options.multi_model:
        archive(scratch, "half_plus_three", "half_plus_three")
        code = archive(scratch, "flowers", "demo") / "code"
        code.mkdir()
        shutil.copy(Path(__file__).parent / "flowers.py", code / "inference.py")
        with Server(scratch, executable=options.server, models=10) as server:
            return show_all(options, server, multi_model_requests(scratch))

    for name in SHOWN:
        (scratch / name).symlink_to(MODELS / name)
    picture = MODELS / "red.png"
    Image.new("RGB", (3, 2), "red").save(picture)
    # Names sort "demo" first; the curl lines are shorter with the other one.
    default = {"SAGEMAKER_TFS_DEFAULT_MODEL_NAME": "half_plus_three"}
    with Server(scratch, executable=options.server, env=default) as server:
        return show_all(options, server, requests(picture))


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
