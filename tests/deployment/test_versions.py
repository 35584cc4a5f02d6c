"""docker/versions.toml and the scripts' reading of it; what the scripts refuse, and which commands they would run."""

import os
import re
import tomllib

from tests.harness.case import ServerCase
from tests.harness.client import run
from tests.harness.constants import ROOT

TABLE = tomllib.loads((ROOT / "docker" / "versions.toml").read_text())
VERSIONS = TABLE["versions"]
SERVABLE = [version for version, entry in VERSIONS.items() if "refused" not in entry]
KEYS = ("full", "cpu", "gpu", "eia", "refused")

EIA_FOLDER = "s3://amazonei-tensorflow/tensorflow-serving/v1.14/ubuntu/latest/"
EIA_FILE = f"{EIA_FOLDER}x.tar.gz"
DIGEST = "0" * 64
REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
# Command lines, and parts of what they would do.
DONE = (
    ("build.sh", "--tag sagemaker-tensorflow-serving:2.19-cpu ", "--tag sagemaker-tensorflow-serving:2.19.0-cpu "),
    ("build.sh --version 2.18.1", "--tag sagemaker-tensorflow-serving:2.18-cpu ", ":2.18.1-cpu "),
    ("build.sh --flavor slim", "--tag sagemaker-tensorflow-serving:2.19-cpu-slim "),
    ("build.sh --flavor full", "--build-arg FLAVOR=full ", "--tag sagemaker-tensorflow-serving:2.19-cpu-full "),
    ("build.sh --arch gpu --repository me/mine", "--tag me/mine:2.19-gpu ", "--tag me/mine:2.19.0-gpu "),
    (f"build.sh --model-server https://example.com/x --sha256 {DIGEST}", "curl --fail"),
    (
        f"build.sh --version 1.14 --arch eia --model-server {EIA_FILE} --sha256 {DIGEST}",
        f"aws s3 cp --only-show-errors {EIA_FILE} ",
        "--tag sagemaker-tensorflow-serving-eia:1.14-cpu ",
    ),
    ("stop.sh --arch gpu", "docker stop --time 30 sagemaker-tensorflow-serving-2.19-gpu\n"),
    ("publish.sh --region cn-north-1 --account 123456789012", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/"),
)
# Command lines that are refused, and part of the reason.
REFUSED = (
    ("build.sh --version 3.0", "is not in docker/versions.toml"),
    ("build.sh --version latest", "it must look like"),
    ("build.sh --version", "--version needs a value"),
    ("build.sh --arch tpu", "it can be cpu, gpu or eia"),
    ("build.sh --version 2.0 --arch eia", "there is no TensorFlow Serving 2.0 for eia"),
    ("build.sh --version 1.14 --arch eia", EIA_FOLDER),
    ("build.sh --flavor fat", "it can be python, full or slim"),
    ("build.sh --flavor slim --python-packages python3-numpy", "--flavor slim has none"),
    ("build.sh --wheels docker", "--wheels is for --flavor full"),
    ("build.sh --flavor full --wheels docker", "there are no wheels in docker"),
    ("build.sh --color red", "unknown option --color"),
    ("build.sh --model-server https://example.com/x", "needs --sha256"),
    ("build.sh --sha256 12", "it must have 64 digits"),
    ("build.sh --executables /nowhere", "/nowhere/sagemaker-tfs is missing"),
    ("build.sh --model-server x --model-server-image y", "exclude each other"),
    ("build-all.sh --version 2.19", "is not for"),
    ("publish.sh --dry-run --account 12", "must have 12 digits"),
)


def order(version):
    return tuple(map(int, version.split(".")))


def script(name, *options, env=None, code=0):
    """Output of a script, without the caller's credentials and settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", **(env or {})}
    return run(ROOT / "scripts" / name, *options, env=environment, code=code)


class Table(ServerCase):
    def test_every_version_of_the_old_container_is_there_and_complete(self):
        old = {f"1.{minor}" for minor in range(4, 16)} | {f"2.{minor}" for minor in range(20)}
        self.assertLessEqual(old, VERSIONS.keys())
        always = max(order(TABLE["needs"][name]) for name in ("rest_api_port", "max_num_load_retries", "model_status"))
        for version, entry in VERSIONS.items():
            with self.subTest(version):
                self.assertTrue(entry["full"].startswith(f"{version}."))
                self.assertFalse(set(entry) - set(KEYS))
                self.assertEqual("refused" in entry, "cpu" not in entry)
                # What the server always needs decides which versions are refused.
                self.assertEqual("refused" in entry, order(version) < always)
                self.assertEqual("eia" in entry, version in ("1.11", "1.12", "1.13", "1.14", "1.15"))

    def test_the_scripts_read_it_as_a_toml_reader_does(self):
        read = 'set -eu; cd "$1"; . scripts/lib/images.sh; shift; for pair; do echo "$(version_value $pair)"; done'
        wanted = {f"{version} {key}": entry.get(key, "") for version, entry in VERSIONS.items() for key in KEYS}
        lines = run("bash", "-c", read, "-", ROOT, *wanted).splitlines()
        self.assertEqual(dict(zip(wanted, lines, strict=True)), wanted)


class Build(ServerCase):
    def arguments(self, *options):
        """The build arguments of the docker command."""
        text = script("build.sh", "--dry-run", *options)
        (line,) = [line for line in text.splitlines() if line.startswith("docker build ")]
        return dict(re.findall(r"--build-arg (\w+)=(\S+)", line))

    def test_every_version_and_processor(self):
        for version, entry in VERSIONS.items():
            for arch in ("cpu", "gpu"):
                options = ("--version", version, "--arch", arch)
                if "refused" in entry:
                    self.assertIn(entry["refused"], script("build.sh", *options, code=1))
                    continue
                found = self.arguments(*options)
                self.assertEqual(found["MODEL_SERVER_IMAGE"], entry[arch].replace("FULL", entry["full"]))
                self.assertEqual(found["TFS_SHORT_VERSION"], version)

    def test_a_gpu_image_begins_with_tensorflow_servings_own(self):
        found = self.arguments("--arch", "gpu")
        self.assertEqual((found["BASE_IMAGE"], found["MODEL_SERVER"]), ("tensorflow/serving:2.19.0-gpu", "base"))
        found = self.arguments("--arch", "gpu", "--base-image", "cuda:12")
        self.assertEqual(found["BASE_IMAGE"], "cuda:12")
        self.assertNotIn("MODEL_SERVER", found)


class Others(ServerCase):
    def test_what_is_done_and_what_is_refused(self):
        for command, *parts in DONE:
            text = script(*command.split(), "--dry-run")
            for part in parts:
                self.assertIn(part, text, command)
        for command, reason in REFUSED:
            self.assertIn(reason, script(*command.split(), code=1), command)

    def test_help_is_the_manual(self):
        for name in ("build", "build-all", "publish", "publish-all", "start", "stop", "curl", "executables"):
            text = script(f"{name}.sh", "--help")
            self.assertIn(f"./scripts/{name}.sh", text)
            self.assertNotIn("set -", text)

    def test_start(self):
        options = ["--model-dir", "/models", "--port", "8081", "--arch", "gpu", "--env", "A=b c"]
        self.assertEqual(
            script("start.sh", "--dry-run", *options),
            "docker run --detach --name sagemaker-tensorflow-serving-2.19-gpu --publish 127.0.0.1:8081:8080"
            " --volume /models:/opt/ml/model:ro --env 'A=b c' --gpus all sagemaker-tensorflow-serving:2.19-gpu serve\n",
        )

    def publish(self, describe, code=0):
        """Output of publish.sh, and its calls of programs in the places of docker and aws."""
        folder = self.folder()
        # One line at once: the two run at the same time.
        docker = '[[ $1 != login ]] || password=" < $(cat)"; echo "docker $*$password" >>"$LOG"'
        aws = f"""echo "aws $*" >>"$LOG"
        case "$*" in
          *get-caller-identity*) echo 123456789012 ;;
          *get-login-password*) echo secret ;;
          *describe-repositories*) {describe} ;;
        esac"""
        for name, text in (("docker", docker), ("aws", aws)):
            (folder / name).write_text(f"#!/bin/bash\n{text}\n")
            (folder / name).chmod(0o755)
        env = {"LOG": str(folder / "log"), "AWS_REGION": "eu-west-1", "PATH": f"{folder}:{os.environ['PATH']}"}
        return script("publish.sh", env=env, code=code), (folder / "log").read_text()

    def test_publish_finds_account_and_region_and_logs_in(self):
        _, log = self.publish("exit 0")
        self.assertIn(f"docker login --username AWS --password-stdin {REGISTRY} < secret\n", log)
        for tag in ("2.19-cpu", "2.19.0-cpu"):
            self.assertIn(f"docker push {REGISTRY}/sagemaker-tensorflow-serving:{tag}\n", log)
        self.assertNotIn("create-repository", log)

    def test_publish_makes_a_missing_repository_but_hides_no_other_error(self):
        _, log = self.publish("echo 'RepositoryNotFoundException' >&2; exit 254")
        create = "aws ecr create-repository --region eu-west-1 --repository-name sagemaker-tensorflow-serving"
        self.assertIn(create, log)
        text, log = self.publish("echo 'AccessDenied: no' >&2; exit 254", code=1)
        self.assertIn("AccessDenied: no", text)
        self.assertNotIn("push", log)

    def test_all_versions(self):
        for name, command in (("build-all.sh", "docker build "), ("publish-all.sh", "docker push ")):
            text = script(name, "--dry-run", "--flavor", "slim")
            self.assertEqual(len(re.findall(r"^# [0-9.]+ [cg]pu$", text, re.M)), 2 * len(SERVABLE))
            commands = [line for line in text.splitlines() if line.startswith(command)]
            for version in SERVABLE:
                for arch in ("cpu", "gpu"):
                    self.assertTrue([line for line in commands if f":{version}-{arch}-slim" in line])
