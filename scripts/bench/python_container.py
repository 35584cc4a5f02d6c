"""Amazon's Python container, run outside of its image: what `--container CHECKOUT` compares sagemaker-tfs with.

The container's own files run from a copy. serve.py starts nginx, gunicorn and the model server as it does in the image;
only paths and the listening address differ.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from tests.harness.client import Failure
from tests.harness.constants import HOST, ROOT
from tests.harness.ports import free_ports
from tests.harness.processes import PARENT, stat

from .targets import HERE, Bench, Target, make_model

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
