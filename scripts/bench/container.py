"""`--container CHECKOUT`: Amazon's Python container, run outside of its image, and sagemaker-tfs take turns.

The container's own files run from a copy. serve.py starts nginx, gunicorn and the model server as in the image; only
paths and the listening address differ. Both sides have the same cheap model server, Python and packages.
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
from .targets import HERE, Bench, Ours, Target, make_model

# Where clones have the files: of aws/deep-learning-containers, and of aws/sagemaker-tensorflow-serving-container.
FOLDERS = ("scripts/docker/tensorflow/inference/sagemaker", "docker/build_artifacts/sagemaker")
PACKAGES = ROOT / "target" / "tools" / "container" / "bin"
BACKEND = HERE / "nginx_model_server"
HANDLERS = ("", "pair")
BOTH = "without / with handlers"
CONNECTIONS = 16
# Seconds of the load during which the model server is killed, and when.
KILL_LOAD, KILL_AFTER = 5, 1
TEMPORARY = "".join(f"\n  {kind}_temp_path /tmp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
# Only in nginx.conf.template: loopback, a module wherever nginx has it, and folders that any user may enter or write.
NGINX = ((r"listen (?=%)", f"listen {HOST}:"), (r"load_module \S*/", "load_module modules/"))
NGINX += ((r"^http \{", f"user root;\nhttp {{{TEMPORARY}"),)


def copy_sources(checkout: Path, home: Path) -> None:
    """Copies the container's files to home/sagemaker, with their absolute paths below `home`."""
    found = [checkout / folder for folder in FOLDERS if (checkout / folder / "serve.py").is_file()]
    if not found:
        raise Failure(f"{checkout} has none of the files {', '.join(f'{folder}/serve.py' for folder in FOLDERS)}")
    shutil.copytree(found[0], home / "sagemaker")
    (home / "tmp").mkdir()
    for file in filter(Path.is_file, (home / "sagemaker").rglob("*")):
        text = file.read_text()
        for pattern, new in NGINX if file.name == "nginx.conf.template" else ():
            text = re.sub(pattern, new, text, flags=re.MULTILINE)
        file.write_text(re.sub(r"(?<![\w.])/(sagemaker|opt/ml|tmp)\b", rf"{home}/\1", text))


def how(bench: Bench) -> str:
    """What stands below the table."""
    command = ["git", "-C", bench.container, "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True)
    commit = f"commit {found.stdout.strip()}" if found.returncode == 0 else "an unknown commit"
    return f"The container's sources are those of {commit}, run outside of its image. Figures are medians."


class PythonContainer(Target):
    """serve.py of the container, with nginx, gunicorn if there is a handler script, and the model server."""

    def __init__(self, bench: Bench, handler: str):
        home = Path(bench.scratch, f"container-{free_ports()}")
        copy_sources(bench.container, home)
        make_model(home / "opt" / "ml" / "model", handler)
        (home / "bin").mkdir()
        model_server = home / "bin" / "tensorflow_model_server"
        model_server.write_text(f'#!/bin/sh\nexec {BACKEND} "$@"\n')
        model_server.chmod(0o755)
        self.port = free_ports(4)
        env = {
            "PATH": f"{home}/bin:{_path()}",
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
    """The processes of the model server: nginx in a folder of this name, and what it has started."""
    children = {pid: stat(pid) for pid in server.children()}
    masters = {pid for pid in children if "nginx-model-server" in _command(pid)}
    return masters | {pid for pid, fields in children.items() if fields and int(fields[PARENT]) in masters}


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


def _path() -> str:
    return f"{PACKAGES}{os.pathsep}{os.environ['PATH']}"


def against_container(bench: Bench) -> Iterator[Row]:
    sides: dict[str, Callable[[str], Target]] = {
        "container": lambda handler: PythonContainer(bench, handler),
        "ours": lambda handler: Ours(bench, handler, BACKEND, PATH=_path()),
    }
    with contextlib.ExitStack() as running:
        plain, pair = (
            {side: running.enter_context(start(handler)) for side, start in sides.items()} for handler in HANDLERS
        )
        for server in (*plain.values(), *pair.values()):
            server.wait_ready()
        time.sleep(1)
        processes = [[[*server.pids(), *server.workers()] for server in both.values()] for both in (plain, pair)]
        at_rest = [[proportional_memory(pids) / MB for pids in both] for both in processes]
        small, csv = small_json(bench, CONNECTIONS), large_csv(bench, 1, 0.1)
        for work, both in (("small JSON", plain), ("pair of handlers", pair)):
            runs = take_turns(bench, {small: both})[small].values()
            for figure in (RATE, P99, CPU):
                yield compared(name(work, figure, CONNECTIONS), figure, *runs)
        times = [[_csv_ms(server, csv) for server in plain.values()] for _ in range(bench.rounds)]
        yield _row("100 KB of CSV to JSON, one request", "ms", [map(statistics.median, zip(*times))])
        lost = [_lost(server, small) for server in plain.values()]
    yield _row(f"processes besides TFS, {BOTH}", "", [map(len, both) for both in processes])
    yield _row(f"memory of these at rest, {BOTH}", "MB", at_rest)
    starts = [[_start_seconds(bench, start, handler) for start in sides.values()] for handler in HANDLERS]
    yield _row(f"from the start to /ping 200, {BOTH}", "s", starts)
    yield _row(f"failed requests when TFS is killed once, {CONNECTIONS} connections", "", [lost])


def _row(work: str, unit: str, figures: Iterable[Iterable[float]]) -> Row:
    """A row with figures of both servers, without handlers and with, or just one of each."""
    base, ours = map(tuple, zip(*figures))
    return Row(work, ours, unit, base)


def _csv_ms(server: Target, load: Load) -> float:
    begin = time.monotonic()
    post(server, load)
    return (time.monotonic() - begin) * 1000


def _start_seconds(bench: Bench, start: Callable[[str], Target], handler: str) -> float:
    times = []
    for _ in range(bench.rounds):
        with start(handler) as server:
            times.append(first_answer(server.port, "/ping") - server.begin)
    return statistics.median(times)


def _lost(server: Target, load: Load) -> int:
    """How many requests fail when the model server is killed once under this load."""
    killed = threading.Timer(KILL_AFTER, lambda: [os.kill(pid, signal.SIGKILL) for pid in model_server_pids(server)])
    killed.start()
    failures = wrk_figures(server, load, KILL_LOAD)["failures"]
    killed.join()
    server.wait_ready()
    return failures


def table(rows: list[Row]) -> str:
    """The table of README.md."""
    lines = [("", "Python container", "`sagemaker-tfs`", "ratio"), ("---",) * 4]
    for row in rows:
        base, ours = ((value if isinstance(value, tuple) else (value,)) for value in (row.base, row.ours))
        found = [statistics.median(row.ratios)] if row.ratios else [us / them for them, us in zip(base, ours) if them]
        cells = (f"{' / '.join(map(_three_digits, values))} {row.unit}".rstrip() for values in (base, ours))
        lines.append((row.work, *cells, " / ".join(f"{ratio:.2g}x" for ratio in found) or NONE))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _three_digits(value: float) -> str:
    return f"{float(f'{value:.3g}'):,.10g}"
