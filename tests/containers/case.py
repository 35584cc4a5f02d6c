"""A test case with images made on Debian packages, and with containers run as SageMaker runs them.

No registry is needed: mmdebstrap makes the base image, of the same release as this machine, so that executables built
here run in it. Images and containers have the label of this run, by which they are removed when the run ends, also
when it is interrupted.
"""

import atexit
import contextlib
import functools
import hashlib
import http.client
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import unittest
import uuid
from pathlib import Path

from tests.harness.case import ServerCase
from tests.harness.client import Failure, request, run, wait_until
from tests.harness.constants import FAKE_MODEL_SERVER, MODELS, PREDICTIONS, ROOT, STAND_IN
from tests.harness.processes import interrupt_on_signals

BASES = ROOT / "target" / "containers"
LOCK = ROOT / "docker" / "full" / "lock.txt"
EXECUTABLES = {"python": Path(os.environ.get("SAGEMAKER_TFS_TEST_EXECUTABLES", ROOT / "target" / "executables"))}
EXECUTABLES["slim"] = EXECUTABLES["python"].with_name(f"{EXECUTABLES['python'].name}-slim")

RUN = f"sagemaker-tfs-test-{uuid.uuid4().hex[:12]}"
LABEL = f"sagemaker-tfs.test={RUN}"

# What the platform gives a container from SIGTERM to SIGKILL, and what the server promises when busy and when not.
KILL_SECONDS = 30
BUSY_STOP_SECONDS = 25
STOP_SECONDS = 15
# Building installs packages from Debian; everything else takes seconds. These limits are for what hangs.
BUILD_SECONDS = 900
READY_SECONDS = 180


def docker(*arguments, **options):
    return run("docker", *arguments, **options).strip()


def inspect(name, template="{{json .}}", kind="image"):
    return json.loads(docker(kind, "inspect", "--format", template, name))


@functools.cache
def missing():
    """What prevents this suite from running here, or None."""
    if not shutil.which("docker") or subprocess.run(["docker", "version"], capture_output=True).returncode:
        return "no Docker engine answers"
    if platform.freedesktop_os_release()["ID"] not in ("debian", "ubuntu"):
        return "the base image is made of the packages of this machine's release, which must be a Debian or Ubuntu"
    if not shutil.which("mmdebstrap"):
        return "mmdebstrap is missing; install it with: sudo apt-get install mmdebstrap"
    for path in (*(folder / "sagemaker-tfs" for folder in EXECUTABLES.values()), FAKE_MODEL_SERVER):
        if not path.exists():
            return f"{path} is missing; scripts/executables.sh and cargo build --example fake_model_server make them"
    return None


def engine_or_skip():
    """The setUpModule of each module."""
    if reason := missing():
        raise unittest.SkipTest(f"SKIPPED: no containers are tested: {reason}")


@functools.cache
def base_image():
    """An image with a minimal system. All that is built on it inherits its label."""
    name = platform.freedesktop_os_release()["VERSION_CODENAME"]
    tar = BASES / f"base-{name}.tar"
    if not tar.exists():
        tar.parent.mkdir(parents=True, exist_ok=True)
        new = tar.with_suffix(f".{os.getpid()}.new")
        # Distributions differ in what they let other users than root do.
        command = [] if os.geteuid() == 0 or not shutil.which("sudo") else ["sudo", "--non-interactive"]
        command += ["mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", name, new]
        run(*command, timeout=BUILD_SECONDS)
        new.rename(tar)
    atexit.register(remove_all)
    # The default of SIGTERM would end this process without that.
    interrupt_on_signals()
    docker("import", "--change", f"LABEL {LABEL}", tar, f"{RUN}:base", timeout=BUILD_SECONDS)
    return f"{RUN}:base"


def remove_all():
    """Containers and images of this run."""
    ours = ("--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}")
    with contextlib.suppress(subprocess.TimeoutExpired):
        if containers := docker("ps", *ours, code=None).split():
            docker("rm", "--force", "--volumes", *containers, code=None)
        # An image can go once no other is made from it; the list begins with the newest.
        for _ in range(3):
            if images := docker("images", *ours, code=None).split():
                docker("rmi", "--force", *dict.fromkeys(images), code=None)


def build(*options, base=True, code=0):
    """The output of scripts/build.sh with the executables of the flavor, on our base image unless `base` is false."""
    executables = EXECUTABLES["slim" if "slim" in options else "python"]
    command = [ROOT / "scripts" / "build.sh", "--repository", f"{RUN}/serving", "--executables", executables]
    command += ["--base-image", base_image()] if base else []
    command += [] if (executables / "sbom" / "sagemaker-tfs.cdx.json").exists() else ["--no-audit"]
    return run(*command, *options, code=code, timeout=BUILD_SECONDS)


@functools.cache
def wheels():
    """A folder with the packages of the flavor full for our base image's Python: builds here reach only Debian."""
    folder = BASES / f"wheels-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        new = folder.with_suffix(f".{os.getpid()}.new")
        command = [sys.executable, "-m", "pip", "--python", "/usr/bin/python3", "--quiet", "download", "--no-deps"]
        command += ["--require-hashes", "--only-binary", ":all:", "--requirement", LOCK, "--dest", new]
        try:
            run(*command, timeout=BUILD_SECONDS)
        except Failure as failure:
            raise unittest.SkipTest(f"SKIPPED: the packages cannot be downloaded: {failure}") from None
        new.rename(folder)
    return folder


@functools.cache
def image(flavor):
    """The image of this flavor, with the fake model server in place of TensorFlow Serving."""
    options = ("--wheels", wheels()) if flavor == "full" else ()
    build("--version", "2.19", "--arch", "cpu", "--flavor", flavor, "--model-server", FAKE_MODEL_SERVER, *options)
    return f"{RUN}/serving:2.19-cpu" + ("" if flavor == "python" else f"-{flavor}")


class Container:
    """A container as SageMaker runs it: `serve`, a read-only file system with one tmpfs, models in a read-only volume,
    limited memory. `remove` ends it."""

    def __init__(self, image, models=None, *, inside="/opt/ml/model", env=None, options=(), command=("serve",)):
        words = ["create", "--label", LABEL, "--publish", "127.0.0.1::8080", "--read-only", "--tmpfs", "/tmp"]
        words += ["--memory", "1g", "--memory-swap", "1g"]
        if models is not None:
            words += ["--volume", f"{models}:{inside}:ro"]
        for name, value in (env or {}).items():
            words += ["--env", f"{name}={value}"]
        self.id = docker(*words, *options, image, *command).splitlines()[-1]
        docker("start", self.id)

    @functools.cached_property
    def port(self):
        return int(docker("port", self.id, "8080").rpartition(":")[2])

    def remove(self):
        docker("rm", "--force", "--volumes", self.id, code=None)

    def state(self, name):
        return inspect(self.id, f"{{{{json .State.{name}}}}}", kind="container")

    def logs(self):
        return docker("logs", self.id)

    def wait_ready(self):
        def ready():
            if not self.state("Running"):
                raise Failure(f"the container ended with exit code {self.state('ExitCode')}\n{self.logs()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.request("GET", "/ping").status == 200

        self.wait_for(ready, READY_SECONDS)
        return self

    def wait_ended(self):
        """The exit code."""
        return int(docker("wait", self.id))

    def wait_for(self, condition, seconds=60):
        return wait_until(condition, self.logs, seconds)

    def request(self, method, path, body=None, headers=None):
        return request(self.port, method, path, body, headers)

    def shell(self, script):
        """The output of a shell script that runs inside."""
        return docker("exec", self.id, "sh", "-c", script)

    def processes(self):
        """Process id to (name, state) of all processes inside."""
        # The shell becomes `cat`, the only process of this question. One that has just ended makes `cat` fail.
        stats = docker("exec", self.id, "sh", "-c", "exec cat /proc/[0-9]*/stat", code=None)
        found = re.findall(r"^(\d+) \((.*)\) (\S) ", stats, re.MULTILINE)
        if not found:
            raise Failure(f"the container does not run: {stats}")
        return {int(pid): (name, state) for pid, name, state in found if name != "cat"}

    def strangers(self, *expected):
        """Zombies, and processes with other names than these."""
        return [one for one in self.processes().values() if one[1] == "Z" or one[0] not in expected]

    def model_servers(self):
        # The kernel keeps 15 characters of a name.
        return [pid for pid, (name, state) in self.processes().items() if name == "tensorflow_mode" and state != "Z"]

    def in_flight(self):
        """Requests that the fake model server is working on."""
        return self.request("GET", "/tfs/fake/stats").json()["in_flight"]


class ContainerCase(ServerCase):
    """Folders, containers and images of a test are removed after the test."""

    @classmethod
    def folder(cls):
        folder = super().folder()
        folder.chmod(0o755)  # containers of other users look into it
        return folder

    def models(self, name="half_plus_three", parent=None, **code):
        """A model directory with two versions of a model, and the files of its folder `code`."""
        folder = parent or self.folder()
        self.empty_model(folder / name, "00000123", "00000124")
        for file, text in code.items():
            (folder / "code").mkdir(exist_ok=True)
            (folder / "code" / f"{file}.py").write_text(text)
        return folder

    def container(self, image_name, models=None, **options):
        """A container that may not serve."""
        container = Container(image_name, models, **options)
        self.clean_up(container.remove)
        return container

    def serve(self, flavor="slim", models=None, **options):
        return self.container(image(flavor), models or self.models(), **options).wait_ready()

    def tensorflow_models(self, *names):
        """A model directory with copies of models of scripts/make_models.py: links would lead out of a container."""
        folder = self.folder()
        for name in names:
            if not (MODELS / name).exists():
                self.skipTest(f"SKIPPED: there are no models in {MODELS}; scripts/demo.sh makes them")
            shutil.copytree(MODELS / name, folder / name)
        return folder

    def serve_tensorflow(self, flavor, models, env=None):
        """TensorFlow really computes: the environment of the tests comes in read-only volumes, and its stand-in takes
        the place of TensorFlow Serving."""
        environment = Path(sys.prefix).resolve()
        # The links of a virtual environment lead to its Python: both are where they are outside.
        folders = {environment, ROOT / "scripts"}
        # The image has the system's Python, in the same version.
        if not sys.base_prefix.startswith("/usr"):
            folders |= {Path(sys.base_prefix), Path(sysconfig.get_path("stdlib"))}
        options = [word for folder in sorted(folders) for word in ("--volume", f"{folder}:{folder}:ro")]
        env = {
            "SAGEMAKER_TFS_MODEL_SERVER": STAND_IN,
            "MODEL_SERVER_PYTHON": environment / "bin" / "python3",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **(env or {}),
        }
        return self.serve(flavor, models, env=env, options=options)

    def check_predictions(self, answer):
        self.check(answer, PREDICTIONS)

    def check_stops(self, container, seconds=STOP_SECONDS):
        """It ends within this time of SIGTERM, with exit code 0; 137 would be SIGKILL's."""
        begin = time.monotonic()
        docker("stop", "--time", KILL_SECONDS, container.id)
        self.assertLess(time.monotonic() - begin, seconds)
        self.assertEqual(container.state("ExitCode"), 0, container.logs())
