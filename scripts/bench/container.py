"""`--container CHECKOUT`: Amazon's Python container, run outside of its image, and sagemaker-tfs take turns.

Both have the same cheap model server, the same Python and the same packages. The container's own files run from a copy:
serve.py starts nginx, gunicorn and the model server as it does in the image; only paths and the listening address differ.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.harness.client import Failure
from tests.harness.constants import HOST, ROOT
from tests.harness.ports import free_ports
from tests.harness.processes import PARENT, proportional_memory, stat

from .load import Load, large_csv, post, small_json, take_turns, wrk_figures
from .parts import first_answer
from .rows import CPU, MB, NONE, P99, RATE, Row, compared, name
from .targets import HERE, Bench, Ours, Target, make_model, say

HANDLERS = ("", "pair")
BOTH = "without / with handlers"
CONNECTIONS = 16
# Seconds of the load under which the model server is killed, and when.
KILL_LOAD, KILL_AFTER = 5, 1
# What `_fresh` returns: work and unit.
FRESH_ROWS = (("processes besides TFS", ""), ("memory of these at rest", "MB"), ("from the start to /ping 200", "s"))
# Where the files are in a clone of aws/deep-learning-containers or aws/sagemaker-tensorflow-serving-container.
FOLDERS = ("scripts/docker/tensorflow/inference/sagemaker", "docker/build_artifacts/sagemaker")
# The Python and packages of the container, and of our handlers here.
PACKAGES = ROOT / "target" / "tools" / "container" / "bin"
BACKEND = HERE / "nginx_model_server"
PATHS = re.compile(r"(?<![\w.])/(sagemaker|opt/ml|tmp)\b")
TEMPLATE = "nginx.conf.template"
KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
TEMPORARY = "".join(f"\n  {kind}_temp_path /tmp/{kind};" for kind in KINDS)
# Loopback; the module where this nginx has it; a user and folders for which any caller has the rights.
NGINX = {
    r"listen (?=%)": f"listen {HOST}:",
    r"load_module \S*/": "load_module modules/",
    r"^http \{": f"user root;\nhttp {{{TEMPORARY}",
}


def copy_sources(checkout: Path, home: Path) -> None:
    """Copies the container's files to home/sagemaker. There, their absolute paths are below `home`."""
    found = [checkout / folder for folder in FOLDERS if (checkout / folder / "serve.py").is_file()]
    if not found:
        raise Failure(f"{checkout} has neither {' nor '.join(f'{folder}/serve.py' for folder in FOLDERS)}")
    shutil.copytree(found[0], home / "sagemaker")
    (home / "tmp").mkdir()
    for file in filter(Path.is_file, (home / "sagemaker").rglob("*")):
        text = file.read_text()
        for pattern, new in NGINX.items() if file.name == TEMPLATE else ():
            text = re.sub(pattern, new, text, flags=re.MULTILINE)
        file.write_text(PATHS.sub(rf"{home}/\1", text))


def search_path() -> str:
    return f"{PACKAGES}{os.pathsep}{os.environ['PATH']}"


class PythonContainer(Target):
    """serve.py of the container, with nginx, the model server, and gunicorn if a script of handlers/ is named."""

    def __init__(self, bench: Bench, handler: str):
        self.port = free_ports(4)
        home = bench.scratch / f"container-{self.port}"
        copy_sources(bench.container, home)
        make_model(home / "opt" / "ml" / "model", handler)
        model_server = home / "bin" / "tensorflow_model_server"
        model_server.parent.mkdir()
        model_server.write_text(f'#!/bin/sh\nexec {BACKEND} "$@"\n')
        model_server.chmod(0o755)
        env = {
            "PATH": f"{model_server.parent}{os.pathsep}{search_path()}",
            "HOME": str(home),  # gunicorn makes a socket there
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "SAGEMAKER_SAFE_PORT_RANGE": f"{self.port + 1}-{self.port + 3}",
        }
        super().__init__([PACKAGES / "python3", home / "sagemaker" / "serve.py"], env)

    def wait_ready(self) -> None:
        self.wait_answer(self.port, "/ping")

    def pids(self) -> list[int]:
        backend = model_server_pids(self)
        return [self.pid, *(pid for pid in self.children() if pid not in backend)]


def model_server_pids(server: Target) -> set[int]:
    """The processes of the model server: nginx in a folder of this name, and its workers."""
    children = {pid: stat(pid) for pid in server.children()}
    masters = {pid for pid in children if "nginx-model-server" in _command(pid)}
    return masters | {pid for pid, fields in children.items() if fields and int(fields[PARENT]) in masters}


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


def against_container(bench: Bench) -> Iterator[Row]:
    starts: list[Callable[[str], Target]] = [
        lambda handler: PythonContainer(bench, handler),
        lambda handler: Ours(bench, handler, BACKEND, PATH=search_path()),
    ]
    with contextlib.ExitStack() as running:
        plain, pair = ([running.enter_context(start(handler)) for start in starts] for handler in HANDLERS)
        small, csv = small_json(bench, CONNECTIONS), large_csv(bench, 1, 0.1)
        for work, servers in (("small JSON", plain), ("pair of handlers", pair)):
            sides = dict(zip(("container", "ours"), servers, strict=True))
            runs = take_turns(bench, {small: sides})[small].values()
            for figure in (RATE, P99, CPU):
                yield compared(name(work, figure, CONNECTIONS), figure, *runs)
        say("100 KB of CSV")
        times = [[_post_ms(server, csv) for server in plain] for _ in range(bench.rounds)]
        yield _row("100 KB of CSV to JSON, one request", "ms", [map(statistics.median, zip(*times, strict=True))])
        say("a model server that is killed")
        lost = [_lost(server, small) for server in plain]
    # Servers that run at the same time share pages, and each would count only a part of them: one runs at a time.
    say("starts")
    fresh = [[_fresh(bench, start, handler) for start in starts] for handler in HANDLERS]
    for index, (work, unit) in enumerate(FRESH_ROWS):
        yield _row(f"{work}, {BOTH}", unit, [[found[index] for found in both] for both in fresh])
    yield _row(f"failed requests when TFS is killed once, {CONNECTIONS} connections", "", [lost])


def _row(work: str, unit: str, figures: Iterable[Iterable[float]]) -> Row:
    """A row with figures of both servers, without handlers and with, or only one of each."""
    base, ours = zip(*figures, strict=True)
    return Row(work, ours, unit, base)


def _post_ms(server: Target, load: Load) -> float:
    begin = time.monotonic()
    post(server, load)
    return (time.monotonic() - begin) * 1000


def _lost(server: Target, load: Load) -> int:
    """How many requests fail when the model server is killed once under this load."""
    killer = threading.Timer(KILL_AFTER, lambda: [os.kill(pid, signal.SIGKILL) for pid in model_server_pids(server)])
    killer.start()
    failures = wrk_figures(server, load, KILL_LOAD)["failures"]
    killer.join()
    server.wait_ready()
    return failures


def _fresh(bench: Bench, start: Callable[[str], Target], handler: str) -> list[float]:
    """Processes, memory in MB and seconds to the first 200 of /ping of a server that has just started."""
    found = []
    for _ in range(bench.rounds):
        with start(handler) as server:
            seconds = first_answer(server.port, "/ping") - server.begin
            time.sleep(1)
            pids = [*server.pids(), *server.workers()]
            found.append((len(pids), proportional_memory(pids) / MB, seconds))
    return list(map(statistics.median, zip(*found, strict=True)))


def table(rows: list[Row]) -> str:
    """The table of README.md."""
    lines = [("", "Python container", "`sagemaker-tfs`", "ratio"), ("---",) * 4]
    for row in rows:
        base, ours = (figures if isinstance(figures, tuple) else (figures,) for figures in (row.base, row.ours))
        each = [us / them for them, us in zip(base, ours, strict=True) if them and us]
        ratios = [statistics.median(row.ratios)] if row.ratios else each
        cells = (f"{' / '.join(map(_three_digits, figures))} {row.unit}".rstrip() for figures in (base, ours))
        lines.append((row.work, *cells, " / ".join(f"{ratio:.2g}x" for ratio in ratios) or NONE))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _three_digits(figure: float) -> str:
    return f"{float(f'{figure:.3g}'):,.10g}"


def how(checkout: Path) -> str:
    """What the line below the table says about the container."""
    command = ["git", "-C", checkout, "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True)
    commit = f"commit {found.stdout.strip()}" if found.returncode == 0 else "an unknown commit"
    return f"The Python container's sources are those of {commit}, run outside of its image."
