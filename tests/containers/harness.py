"""Fixtures of this suite: images made on Debian packages, and containers run as SageMaker runs them.

No registry is needed: the base image is made by mmdebstrap, of the same release as this machine, so that executables
built here run in it. Everything made here has the label of this run, and is removed by id at the end, also when the
run is interrupted.
"""

import atexit
import contextlib
import functools
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "demo"))

from server import Answer  # noqa: E402  (found through the line above)

TARGET = ROOT / "target"
BUILD = ROOT / "scripts" / "build.sh"

EXECUTABLES = pathlib.Path(os.environ.get("SAGEMAKER_TFS_TEST_EXECUTABLES", TARGET / "executables"))
# Those of the flavor slim, which differ: beside the others.
SLIM_EXECUTABLES = EXECUTABLES.with_name(EXECUTABLES.name + "-slim")
FAKE_MODEL_SERVER = pathlib.Path(
    os.environ.get("SAGEMAKER_TFS_TEST_FAKE_MODEL_SERVER", TARGET / "debug/examples/fake_model_server")
)
MODELS = pathlib.Path(os.environ.get("SAGEMAKER_TFS_TEST_MODELS", ROOT / ".models"))

# Containers and images of this run.
RUN = f"sagemaker-tfs-test-{uuid.uuid4().hex[:12]}"
LABEL = f"sagemaker-tfs.test={RUN}"

JSON = "application/json"
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
# What the fake model server answers to everything: half_plus_three to 1, 2 and 5.
PREDICTIONS = '{\n    "predictions": [3.5, 4.0, 5.5\n    ]\n}'

# What the platform gives a container from SIGTERM to SIGKILL, and what our own promise is.
KILL_SECONDS = 30
BUSY_STOP_SECONDS = 25
# Building installs packages from Debian; all else takes seconds. These are for what hangs.
BUILD_SECONDS = 900
READY_SECONDS = 180
ANSWER_SECONDS = 90


def docker(*arguments, timeout=120, check=True):
    """The output of a docker command, both streams."""
    done = subprocess.run(
        ["docker", *map(str, arguments)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", timeout=timeout,
    )  # fmt: skip
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout.strip()


def release():
    """ID and code name of this machine's distribution."""
    with open("/etc/os-release") as file:
        lines = dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
    return lines.get("ID", "").strip('"'), lines.get("VERSION_CODENAME", "").strip('"')


@functools.cache
def missing():
    """What prevents this suite from running here, or None."""
    if not shutil.which("docker"):
        return "docker is missing"
    done = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True)
    if done.returncode:
        return "no Docker engine answers"
    distribution, name = release()
    if distribution not in ("debian", "ubuntu") or not name:
        return "the base image is made of the packages of this machine's release, which must be a Debian or Ubuntu"
    if not shutil.which("mmdebstrap"):
        return "mmdebstrap is missing; install it with: sudo apt-get install mmdebstrap"
    executables = (
        EXECUTABLES / "sagemaker-tfs", EXECUTABLES / "sagemaker-tfs-python", SLIM_EXECUTABLES / "sagemaker-tfs",
    )  # fmt: skip
    for path in (*executables, FAKE_MODEL_SERVER):
        if not path.exists():
            return f"{path} is missing; scripts/executables.sh and cargo build --example fake_model_server make them"
    return None


def engine_or_skip():
    """To be called by each module's setUpModule."""
    reason = missing()
    if reason:
        raise unittest.SkipTest(f"SKIPPED: no containers are tested: {reason}")


@functools.cache
def base_image():
    """An image with a minimal system. Its label is inherited by all that is built on it."""
    _, name = release()
    tar = TARGET / "containers" / f"base-{name}.tar"
    if not tar.exists():
        tar.parent.mkdir(parents=True, exist_ok=True)
        new = tar.with_suffix(f".{os.getpid()}.new")
        # Distributions differ in what they let users do who are not root.
        command = [] if os.geteuid() == 0 or not shutil.which("sudo") else ["sudo", "--non-interactive"]
        command += ["mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", name, "-"]
        with open(new, "wb") as file:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, check=True, timeout=BUILD_SECONDS)
        new.rename(tar)
    atexit.register(remove_all)
    # The default of SIGTERM would end this process without the line above.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    docker("import", "--change", f"LABEL {LABEL}", tar, f"{RUN}:base", timeout=BUILD_SECONDS)
    return f"{RUN}:base"


def remove_all():
    """Containers and images of this run."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        containers = docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}", check=False).split()
        if containers:
            docker("rm", "--force", "--volumes", *containers, check=False)
        # An image goes once no other is made from it: the newest come first in the list.
        for _ in range(3):
            images = docker("images", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}", check=False)
            if not images:
                return
            docker("rmi", "--force", *dict.fromkeys(images.split()), check=False)


def build(*options, base=True, check=True):
    """Runs scripts/build.sh, for our base image unless `base` is false, with the executables of the flavor."""
    executables = SLIM_EXECUTABLES if "slim" in options else EXECUTABLES
    command = [BUILD, "--repository", f"{RUN}/serving", "--executables", executables]
    if base:
        command += ["--base-image", base_image()]
    if not (executables / "sbom" / "sagemaker-tfs.cdx.json").exists():
        command.append("--no-audit")
    done = subprocess.run(
        [*map(str, command), *map(str, options)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=BUILD_SECONDS,
    )  # fmt: skip
    if check and done.returncode:
        raise AssertionError(f"build.sh: exit code {done.returncode}\n{done.stdout}")
    return done


@functools.cache
def image(flavor):
    """The image of this flavor, with the fake model server in place of TensorFlow Serving."""
    build("--version", "2.19", "--arch", "cpu", "--flavor", flavor, "--model-server", FAKE_MODEL_SERVER)
    return f"{RUN}/serving:2.19-cpu" + ("" if flavor == "python" else f"-{flavor}")


class Container:
    """A container as SageMaker runs it: `serve`, a read-only file system with one tmpfs, models in a read-only volume,
    limited memory. `remove` ends it, whatever happened."""

    def __init__(self, image, models=None, *, inside="/opt/ml/model", env=None, options=(), command=("serve",)):
        words = ["create", "--label", LABEL, "--publish", "127.0.0.1::8080", "--read-only", "--tmpfs", "/tmp"]
        words += ["--memory", "1g", "--memory-swap", "1g"]
        if models is not None:
            words += ["--volume", f"{models}:{inside}:ro"]
        for name, value in (env or {}).items():
            words += ["--env", f"{name}={value}"]
        self.id = docker(*words, *options, image, *command).splitlines()[-1]
        docker("start", self.id)
        ports = self.state("{{json .NetworkSettings.Ports}}")
        self.port = int(((json.loads(ports) or {}).get("8080/tcp") or [{"HostPort": 0}])[0]["HostPort"])

    def remove(self):
        docker("rm", "--force", "--volumes", self.id, check=False)

    def state(self, template):
        return docker("container", "inspect", "--format", template, self.id)

    def running(self):
        return self.state("{{.State.Running}}") == "true"

    def exit_code(self):
        return int(self.state("{{.State.ExitCode}}"))

    def logs(self):
        return docker("logs", self.id)

    def wait_ready(self, limit=READY_SECONDS):
        answer = None

        def ready():
            nonlocal answer
            if not self.running():
                raise AssertionError(f"the container ended with exit code {self.exit_code()}\n{self.logs()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = self.request("GET", "/ping")
            return answer is not None and answer.status == 200

        wait_for(ready, limit, lambda: f"it is not ready: {answer and answer.text}\n{self.logs()}")
        return self

    def wait_ended(self, limit=60):
        wait_for(lambda: not self.running(), limit, lambda: f"it does not end\n{self.logs()}")
        return self.exit_code()

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def invoke(self, body, content_type=JSON, path="/invocations", **headers):
        return self.request("POST", path, body, {"Content-Type": content_type, **headers})

    def shell(self, script, check=True):
        """Runs a shell script inside."""
        return docker("exec", self.id, "sh", "-c", script, check=check)

    def processes(self):
        """Process id to (name, state, parent) of every process inside but those of this question."""
        # Nothing but a shell is needed for this in the container.
        text = self.shell('for p in /proc/[0-9]*; do read -r line <$p/stat && echo "$line"; done 2>/dev/null; echo $$')
        *lines, own = text.splitlines()
        found = {}
        for line in lines:
            number, rest = line.split(" (", 1)
            name, rest = rest.rsplit(") ", 1)
            state, parent = rest.split()[:2]
            found[int(number)] = (name, state, int(parent))
        found.pop(int(own), None)
        return found

    def model_servers(self):
        # The kernel keeps 15 characters of a name.
        wanted = "tensorflow_model_server"[:15]
        return [number for number, (name, state, _) in self.processes().items() if name == wanted and state != "Z"]

    def model_server_command(self):
        (number,) = self.model_servers()
        return self.shell(f"tr '\\0' ' ' </proc/{number}/cmdline").split()

    def fake_stats(self):
        return json.loads(self.request("GET", "/tfs/fake/stats").body)

    def stop(self, seconds=KILL_SECONDS):
        """As the platform does: SIGTERM, then SIGKILL. How long it took."""
        begin = time.monotonic()
        docker("stop", "--time", seconds, self.id, timeout=seconds + 60)
        return time.monotonic() - begin


def wait_for(condition, limit, message):
    """Until the condition holds; fails with the message, a function, after the limit in seconds."""
    end = time.monotonic() + limit
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(message())
        time.sleep(0.05)


class Case(unittest.TestCase):
    """A test case with folders and containers that are gone after it, whatever happened."""

    maxDiff = None

    def folder(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="sagemaker-tfs-test-")).resolve()
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)  # containers of other users look into it
        return folder

    def models(self, *names, parent=None):
        """A model directory with versions 123 and 124 of models as far as the fake model server looks at them."""
        folder = parent or self.folder()
        for name in names or ("half_plus_three",):
            for version in ("00000123", "00000124"):
                (folder / name / version).mkdir(parents=True)
                (folder / name / version / "saved_model.pb").touch()
        return folder

    def start(self, flavor="slim", models=None, **options):
        """A container that serves, if it has not ended."""
        container = Container(image(flavor), models or self.models(), **options)
        self.addCleanup(container.remove)
        return container

    def check(self, answer, text=PREDICTIONS, status=200):
        self.assertEqual((answer.status, answer.text), (status, text))
