"""docker/versions.toml, and the scripts' reading of it; what the scripts refuse and which commands they would run."""

import os
import pathlib
import re
import subprocess
import tempfile
import tomllib
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
TABLE = tomllib.loads((ROOT / "docker" / "versions.toml").read_text())
VERSIONS = TABLE["versions"]


def order(version):
    return tuple(map(int, version.split(".")))


def run(script, *options, path=None, env=None, code=0):
    """Output of a script, without the credentials and settings of whoever runs these tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", **(env or {})}
    if path:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    done = subprocess.run(
        [SCRIPTS / script, *options],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=120,
    )  # fmt: skip
    if done.returncode != code:
        raise AssertionError(f"{script} {options}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


class Table(unittest.TestCase):
    def test_versions_the_old_container_had_are_there(self):
        wanted = [f"1.{minor}" for minor in range(4, 16)] + [f"2.{minor}" for minor in range(20)]
        self.assertFalse(set(wanted) - set(VERSIONS))

    def test_every_version_is_complete(self):
        for version, entry in VERSIONS.items():
            with self.subTest(version):
                self.assertTrue(entry["full"].startswith(f"{version}."))
                self.assertFalse(set(entry) - {"full", "cpu", "gpu", "eia", "refused"})
                self.assertEqual("refused" in entry, "cpu" not in entry)

    def test_what_the_server_always_needs_decides_which_are_refused(self):
        always = max(order(TABLE["needs"][name]) for name in ("rest_api_port", "max_num_load_retries", "model_status"))
        for version, entry in VERSIONS.items():
            self.assertEqual("refused" in entry, order(version) < always, version)

    def test_elastic_inference(self):
        eia = {version for version, entry in VERSIONS.items() if "eia" in entry}
        self.assertEqual(eia, {"1.11", "1.12", "1.13", "1.14", "1.15"})

    def test_the_scripts_read_it_as_a_toml_reader_does(self):
        read = 'set -eu; cd "$1"; . scripts/lib/images.sh; version_value "$2" "$3"'
        for version, entry in VERSIONS.items():
            for key in ("full", "cpu", "gpu", "eia", "refused"):
                done = subprocess.run(
                    ["bash", "-c", read, "-", ROOT, version, key], capture_output=True, text=True, check=True
                )
                self.assertEqual(done.stdout.rstrip("\n"), entry.get(key, ""), (version, key))


class Build(unittest.TestCase):
    def dry(self, *options):
        return run("build.sh", "--dry-run", *options)

    def arguments(self, *options):
        """The build arguments of the docker command."""
        (line,) = [line for line in self.dry(*options).splitlines() if line.startswith("docker build ")]
        return dict(re.findall(r"--build-arg (\w+)=(\S+)", line))

    def test_every_version_and_processor(self):
        for version, entry in VERSIONS.items():
            for arch in ("cpu", "gpu"):
                if "refused" in entry:
                    self.assertIn(entry["refused"], run("build.sh", "--version", version, "--arch", arch, code=1))
                    continue
                found = self.arguments("--version", version, "--arch", arch)
                self.assertEqual(found["MODEL_SERVER_IMAGE"], entry[arch].replace("FULL", entry["full"]))
                self.assertEqual(found["TFS_SHORT_VERSION"], version)

    def test_names_of_images(self):
        for options, names in [
            ([], ["sagemaker-tensorflow-serving:2.19-cpu", "sagemaker-tensorflow-serving:2.19.0-cpu"]),
            (
                ["--version", "2.18.1"],
                ["sagemaker-tensorflow-serving:2.18-cpu", "sagemaker-tensorflow-serving:2.18.1-cpu"],
            ),
            (["--flavor", "slim"], ["sagemaker-tensorflow-serving:2.19-cpu-slim"]),
            (["--arch", "gpu", "--repository", "me/mine"], ["me/mine:2.19-gpu", "me/mine:2.19.0-gpu"]),
        ]:
            text = self.dry(*options)
            for name in names:
                self.assertIn(f"--tag {name} ", text)

    def test_a_gpu_image_begins_with_tensorflow_servings_own(self):
        found = self.arguments("--arch", "gpu")
        self.assertEqual((found["BASE_IMAGE"], found["MODEL_SERVER"]), ("tensorflow/serving:2.19.0-gpu", "base"))
        found = self.arguments("--arch", "gpu", "--base-image", "cuda:12")
        self.assertEqual(found["BASE_IMAGE"], "cuda:12")
        self.assertNotIn("MODEL_SERVER", found)

    def test_elastic_inference_needs_its_file(self):
        text = run("build.sh", "--version", "1.14", "--arch", "eia", code=1)
        self.assertIn("s3://amazonei-tensorflow/tensorflow-serving/v1.14/ubuntu/latest/", text)
        source = "s3://amazonei-tensorflow/tensorflow-serving/v1.14/ubuntu/latest/x.tar.gz"
        text = self.dry("--version", "1.14", "--arch", "eia", "--model-server", source, "--sha256", "0" * 64)
        self.assertIn(f"aws s3 cp --only-show-errors {source} ", text)
        self.assertIn("--tag sagemaker-tensorflow-serving-eia:1.14-cpu ", text)

    def test_no_download_without_a_checksum(self):
        self.assertIn("needs --sha256", run("build.sh", "--model-server", "https://example.com/x", code=1))
        text = self.dry("--model-server", "https://example.com/x", "--sha256", "0" * 64)
        self.assertIn("curl --fail", text)

    def test_what_is_refused(self):
        for options, text in [
            (["--version", "3.0"], "is not in docker/versions.toml"),
            (["--version", "latest"], "it must look like"),
            (["--version"], "--version needs a value"),
            (["--arch", "tpu"], "it can be cpu, gpu or eia"),
            (["--version", "2.0", "--arch", "eia"], "there is no TensorFlow Serving 2.0 for eia"),
            (["--flavor", "fat"], "it can be python or slim"),
            (["--colour", "red"], "unknown option --colour"),
            (["--sha256", "12"], "it must have 64 digits"),
            (["--executables", "/nowhere"], "/nowhere/sagemaker-tfs is missing"),
            (["--model-server", "x", "--model-server-image", "y"], "exclude each other"),
        ]:
            self.assertIn(text, run("build.sh", *options, code=1), options)


class Others(unittest.TestCase):
    def folder_with(self, **programs):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        for name, text in programs.items():
            path = pathlib.Path(folder.name) / name
            path.write_text(f"#!/bin/bash\n{text}\n")
            path.chmod(0o755)
        return pathlib.Path(folder.name)

    def test_help_is_the_manual(self):
        for script in ("build", "build-all", "publish", "publish-all", "start", "stop", "curl", "executables"):
            text = run(f"{script}.sh", "--help")
            self.assertIn(f"./scripts/{script}.sh", text)
            self.assertNotIn("set -", text)

    def test_start_and_stop(self):
        text = run(
            "start.sh", "--dry-run", "--model-dir", "/models", "--port", "8081", "--arch", "gpu", "--env", "A=b c"
        )
        self.assertEqual(
            text,
            "docker run --detach --name sagemaker-tensorflow-serving-2.19-gpu --publish 127.0.0.1:8081:8080"
            " --volume /models:/opt/ml/model:ro --env 'A=b c' --gpus all sagemaker-tensorflow-serving:2.19-gpu serve\n",
        )
        text = run("stop.sh", "--dry-run", "--arch", "gpu")
        self.assertIn("docker stop --time 30 sagemaker-tensorflow-serving-2.19-gpu\n", text)

    def test_publish_names_account_and_region(self):
        text = run("publish.sh", "--dry-run", "--region", "eu-west-1", "--account", "123456789012")
        registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
        self.assertIn(f"docker login --username AWS --password-stdin {registry}\n", text)
        self.assertIn(f"docker push {registry}/sagemaker-tensorflow-serving:2.19-cpu\n", text)
        text = run("publish.sh", "--dry-run", "--region", "cn-north-1", "--account", "123456789012")
        self.assertIn("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/", text)
        self.assertIn("must have 12 digits", run("publish.sh", "--dry-run", "--account", "12", code=1))

    def publish(self, describe, code=0):
        """What publish.sh asks of programs in the places of docker and aws."""
        folder = self.folder_with(
            # One line at once: the two run at the same time.
            docker='[[ $1 != login ]] || password=" < $(cat)"; echo "docker $*$password" >>"$LOG"',
            aws=f"""echo "aws $*" >>"$LOG"
            case "$*" in
              *get-caller-identity*) echo 123456789012 ;;
              *get-login-password*) echo secret ;;
              *describe-repositories*) {describe} ;;
            esac""",
        )
        text = run("publish.sh", path=folder, env={"LOG": str(folder / "log"), "AWS_REGION": "eu-west-1"}, code=code)
        return text, (folder / "log").read_text()

    def test_publish_finds_account_and_region_and_logs_in(self):
        _, log = self.publish("exit 0")
        registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
        self.assertIn(f"docker login --username AWS --password-stdin {registry} < secret\n", log)
        for tag in ("2.19-cpu", "2.19.0-cpu"):
            self.assertIn(f"docker push {registry}/sagemaker-tensorflow-serving:{tag}\n", log)
        self.assertNotIn("create-repository", log)

    def test_publish_makes_a_missing_repository_but_hides_no_other_error(self):
        _, log = self.publish("echo 'RepositoryNotFoundException' >&2; exit 254")
        self.assertIn(
            "aws ecr create-repository --region eu-west-1 --repository-name sagemaker-tensorflow-serving", log
        )
        text, log = self.publish("echo 'AccessDenied: no' >&2; exit 254", code=1)
        self.assertIn("AccessDenied: no", text)
        self.assertNotIn("push", log)

    def test_all_versions(self):
        servable = [version for version, entry in VERSIONS.items() if "refused" not in entry]
        for script, command in (("build-all.sh", "docker build "), ("publish-all.sh", "docker push ")):
            text = run(script, "--dry-run", "--flavor", "slim")
            self.assertEqual(len(re.findall(r"^# [0-9.]+ [cg]pu$", text, re.M)), 2 * len(servable))
            for version in servable:
                for arch in ("cpu", "gpu"):
                    tag = f":{version}-{arch}-slim"
                    self.assertTrue([line for line in text.splitlines() if line.startswith(command) and tag in line])
        self.assertIn("is not for", run("build-all.sh", "--version", "2.19", code=1))


if __name__ == "__main__":
    unittest.main()
