"""The demo: starts the server, shows requests as curl lines with their answers, stops everything.

Run it through scripts/demo.sh, which builds the server and makes the models. The exit code is 0 only when
every answer was the expected one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from server import ROOT, START_SECONDS, Answer, Server, ServerError

MODELS = ROOT / ".models"
# The others in .models are for tests; one of them is broken on purpose.
SHOWN = ("demo", "half_plus_three", "image")
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
TARGET = "X-Amzn-SageMaker-Target-Model"


@dataclass
class Request:
    title: str
    # Gets the answer's JSON, or None for an empty body; says whether it is right.
    right: Callable[[object], bool]
    path: str = "/invocations"
    status: int = 200
    content_type: str | None = None
    attributes: str | None = None
    # A file's path, or the body itself; None: a GET request.
    body: Path | str | None = None
    accept: str | None = None
    target: str | None = None
    # None: GET without a body, POST with one.
    method: str | None = None

    def headers(self) -> dict[str, str]:
        named = {"Content-Type": self.content_type, "Accept": self.accept}
        named |= {ATTRIBUTES: self.attributes, TARGET: self.target}
        return {name: value for name, value in named.items() if value}

    def curl(self, port: int) -> list[str]:
        words = ["curl", *(["-X", self.method] if self.method else [])]
        for name, value in self.headers().items():
            words += ["-H", f"{name}: {value}"]
        if isinstance(self.body, Path):
            words += ["--data-binary", f"@{self.body}"]
        elif self.body is not None:
            words += ["--data-binary", self.body]
        return [*words, f"http://127.0.0.1:{port}{self.path}"]

    def send(self, server: Server) -> Answer:
        """With curl, as it is shown; without it in the same way."""
        if not shutil.which("curl"):
            body = self.body.read_bytes() if isinstance(self.body, Path) else self.body
            method = self.method or ("GET" if body is None else "POST")
            return server.request(method, self.path, body, self.headers())
        quiet = ["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--write-out", "\n%{http_code}"]
        curl, *words = self.curl(server.port)
        done = subprocess.run([curl, *quiet, *words], capture_output=True)
        if done.returncode:
            raise ServerError(f"curl failed: {done.stderr.decode().strip()}{server.last_lines()}")
        body, _, status = done.stdout.rpartition(b"\n")
        return Answer(int(status), {}, body)


def predictions(*expected):
    return lambda answer: answer == {"predictions": list(expected)}


def labels(*expected):
    return lambda answer: [row["label"] for row in answer["predictions"]] == list(expected)


def requests(picture: Path) -> list[Request]:
    flowers = "tfs-model-name=demo"
    return [
        Request("Is it there? (200 with an empty body)", lambda answer: answer is None, path="/ping"),
        Request(
            "JSON as TensorFlow Serving takes it; the model computes x / 2 + 3",
            predictions(3.5, 4.0, 5.5),
            content_type="application/json",
            body='{"instances": [1.0, 2.0, 5.0]}',
        ),
        Request(
            "JSON lines: a line is an instance",
            predictions(3.5, 4.0, 5.5),
            content_type="application/jsonlines",
            body="1.0\n2.0\n5.0\n",
        ),
        Request(
            "CSV: a row is an instance; with this Accept the answer is one line",
            predictions(3.5, 4.0, 5.5),
            content_type="text/csv",
            accept="application/json",
            body="1.0\n2.0\n5.0\n",
        ),
        Request(
            "A certain version of a certain model",
            predictions(3.5),
            content_type="application/json",
            attributes="tfs-model-name=half_plus_three,tfs-model-version=123",
            body='{"instances": [1.0]}',
        ),
        Request(
            "Regression, which takes examples",
            lambda answer: answer == {"results": [3.5, 4.0]},
            content_type="application/json",
            attributes="tfs-method=regress",
            body='{"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]}',
        ),
        Request(
            "A model trained on this machine: kinds of flowers by four measures, from CSV",
            labels("small", "large"),
            content_type="text/csv",
            attributes=flowers,
            body="5.1,3.5,1.4,0.2\n6.9,3.1,5.9,2.1\n",
        ),
        Request(
            "A picture as it is: the model tells its shape and mean brightness",
            predictions({"shape": [2, 3, 3], "mean": 85.0}),
            content_type="image/png",
            attributes="tfs-model-name=image",
            body=picture,
        ),
        Request(
            "A mistake: TensorFlow Serving's own words, with status 400",
            lambda answer: "is not of expected type: float" in answer["error"],
            status=400,
            content_type="application/json",
            body='{"instances": ["one"]}',
        ),
        Request(
            "TensorFlow Serving's own API",
            lambda answer: {v["version"]: v["state"] for v in answer["model_version_status"]}
            == {"123": "AVAILABLE", "124": "AVAILABLE"},
            path="/tfs/v1/models/half_plus_three",
        ),
    ]


def multi_model_requests(models: Path) -> list[Request]:
    half, flowers = "half_plus_three", "flowers"
    urls = {name: str(models / name / "model") for name in (half, flowers)}

    def load(title: str, name: str, status: int = 200, **options) -> Request:
        body = json.dumps({"model_name": name, "url": urls[name]})
        right = options.pop("right", lambda answer: answer["success"].startswith(f"Successfully loaded model {name}"))
        return Request(title, right, "/models", status, "application/json", body=body)

    def listed(*names):
        return lambda answer: [model["modelName"] for model in answer["models"]] == list(names)

    return [
        Request("Is it there? (200; no model is loaded yet)", lambda answer: answer is None, "/ping"),
        load("Load a model: a TensorFlow Serving process of its own starts", half),
        load("Load another, which has a Python handler of its own", flowers),
        Request("What is loaded?", listed(flowers, half), "/models"),
        Request(
            "One model, with TensorFlow Serving's word on its versions",
            lambda answer: {v["version"]: v["state"] for v in answer["model_version_status"]}
            == {"123": "AVAILABLE", "124": "AVAILABLE"},
            f"/models/{half}",
        ),
        Request(
            "Ask one; it computes x / 2 + 3",
            predictions(3.5, 4.0, 5.5),
            f"/models/{half}/invoke",
            content_type="application/json",
            body='{"instances": [1.0, 2.0, 5.0]}',
        ),
        Request(
            "Ask the other, through its handler",
            lambda answer: answer == {"model": flowers, "flowers": ["small", "large"]},
            f"/models/{flowers}/invoke",
            content_type="text/csv",
            body="5.1,3.5,1.4,0.2\n6.9,3.1,5.9,2.1\n",
        ),
        Request(
            "The same at /invocations: a header names the model",
            predictions(3.5, 4.0, 5.5),
            content_type="text/csv",
            target=half,
            body="1.0\n2.0\n5.0\n",
        ),
        load(
            "A mistake: it is there already (409)",
            half,
            409,
            right=lambda answer: answer == {"error": f"Model {half} is already loaded."},
        ),
        Request(
            "Unload it: its process ends, its ports are free",
            lambda answer: answer == {"success": f"Successfully unloaded model {half}."},
            f"/models/{half}",
            method="DELETE",
        ),
        Request(
            "It is gone (404)",
            lambda answer: answer == {"error": f"Model {half} is not loaded yet."},
            f"/models/{half}/invoke",
            404,
            "application/json",
            body='{"instances": [1.0]}',
        ),
        Request("What is left", listed(flowers), "/models"),
        load("Load it again", half),
    ]


def quoted(word: str) -> str:
    """For bash and zsh, with quotes only where they are needed."""
    if word and all(c.isalnum() or c in "-_./:@%+" for c in word):
        return word
    if "'" in word or "\n" in word:
        escaped = word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        return f"$'{escaped}'"
    return f"'{word}'"


def red_picture() -> bytes:
    """A PNG of 3 x 2 red points."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 3, 2, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\xff\0\0" * 3) * 2
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def show(request: Request, server: Server) -> bool:
    """Prints and sends one request; whether its answer was right."""
    print(f"\n# {request.title}\n{' '.join(map(quoted, request.curl(server.port)))}", flush=True)
    answer = request.send(server)
    for line in answer.text.splitlines() or ["(empty)"]:
        print(f"    {line}")
    try:
        right = answer.status == request.status and request.right(json.loads(answer.body) if answer.body else None)
    except (ValueError, LookupError, TypeError):
        right = False
    if not right:
        print(f"    WRONG: this is not the expected answer (status {answer.status}, expected {request.status})")
    return right


def archive(models: Path, name: str, model: str) -> Path:
    """Lays out a model as SageMaker does in multi-model mode; the folder that may have a handler."""
    folder = models / name / "model"
    folder.mkdir(parents=True)
    (folder / model).symlink_to(MODELS / model)
    return folder


def run(options: argparse.Namespace, scratch: Path) -> bool:
    for name in SHOWN:
        if not (MODELS / name).is_dir():
            raise ServerError(f"there is no {MODELS / name}; run ./scripts/demo.sh, which makes the models")
    if options.multi_model:
        archive(scratch, "half_plus_three", "half_plus_three")
        code = archive(scratch, "flowers", "demo") / "code"
        code.mkdir()
        shutil.copy(Path(__file__).parent / "flowers.py", code / "inference.py")
        with Server(options.server, scratch, models=10) as server:
            return show_all(options, server, multi_model_requests(scratch))

    for name in SHOWN:
        (scratch / name).symlink_to(MODELS / name)
    picture = MODELS / "red.png"
    picture.write_bytes(red_picture())

    # Names sort "demo" first; the curl lines are shorter with the other one.
    with Server(options.server, scratch, env={"SAGEMAKER_TFS_DEFAULT_MODEL_NAME": "half_plus_three"}) as server:
        return show_all(options, server, requests(picture))


def show_all(options: argparse.Namespace, server: Server, all_of_them: list[Request]) -> bool:
    """Waits for the server, shows all requests and ends it; whether everything was right."""
    begin = time.monotonic()
    variable = "SAGEMAKER_MULTI_MODEL=true " if options.multi_model else ""
    print(variable + " ".join(map(quoted, server.command)), flush=True)
    what = "" if options.multi_model else "importing TensorFlow takes a while, "
    print(f"waiting for /ping ({what}at most {START_SECONDS} s) ...", flush=True)
    server.wait_ready(lambda seconds, text: print(f"    {seconds:.0f} s: {text}", flush=True))
    print(f"ready after {time.monotonic() - begin:.1f} s", flush=True)

    right = sum(show(request, server) for request in all_of_them)
    print(f"\n{right} of {len(all_of_them)} answers are right", flush=True)

    if options.keep:
        print(f"\nThe server stays up on port {server.port}; its log is {server.log_path}.")
        print("The lines above can be sent again from another terminal. Ctrl-C ends it.", flush=True)
        try:
            code = server.process.wait()
            raise ServerError(f"the server ended with exit code {code}{server.last_lines()}")
        except KeyboardInterrupt:
            print()
    print("stopping ...", flush=True)
    begin = time.monotonic()
    code = server.stop()
    print(f"stopped after {time.monotonic() - begin:.1f} s, exit code {code}", flush=True)
    return right == len(all_of_them) and code == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo.sh", description=__doc__.split("\n\n")[0])
    parser.add_argument("--keep", action="store_true", help="stay up until Ctrl-C")
    parser.add_argument("--multi-model", action="store_true", help="load and unload models while it runs")
    parser.add_argument("--server", type=Path, required=True, help="the sagemaker-tfs executable")
    options = parser.parse_args()

    def interrupt(_number, _frame):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # nothing may interrupt the ending
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    with tempfile.TemporaryDirectory(prefix="sagemaker-tfs-demo-") as scratch:
        try:
            return 0 if run(options, Path(scratch)) else 1
        except ServerError as error:
            print(f"demo: FAILED: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("demo: interrupted", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main())
