"""The recipes of docs/DEPLOYING.md for the local mode of the SageMaker SDK.

Each program of version 2 runs as it stands there, with the image, files and port of this test. Moto takes the place of
Amazon's S3.
"""

import io
import logging
import os
import re
import shutil
import subprocess
import tarfile
import unittest

import boto3
from moto.server import ThreadedMotoServer

from tests.harness.client import run
from tests.harness.constants import HOST, ROOT
from tests.harness.ports import free_ports

from .case import LABEL, ContainerCase, docker, engine_or_skip, image

SDK = ROOT / "target" / "tools" / "sdk-v2" / "bin" / "python"
# Goes in front of each program. The SDK would publish its port on every interface of this machine, and a program
# with an exception would wait for the container's end.
PREAMBLE = """
import os, sys, traceback
from sagemaker.local.image import _SageMakerContainer

original = _SageMakerContainer._create_docker_host
def on_loopback(*arguments):
    found = original(*arguments)
    found["ports"] = [f"127.0.0.1:{port}" for port in found["ports"]]
    return found
def end(*error):
    traceback.print_exception(*error)
    os._exit(1)
_SageMakerContainer._create_docker_host = on_loopback
sys.excepthook = end
"""
CONFIG = """
SchemaVersion: "1.0"
SageMaker:
  PythonSDK:
    Modules:
      TelemetryOptOut: true
"""
IMAGE = "sagemaker-tensorflow-serving:2.19-cpu"
# The SDK looks for the container every few seconds.
SDK_SECONDS = 300
BUCKET = "my-bucket"
REGION = "eu-west-1"
KEY = "AKIDLOCAL"

setUpModule = engine_or_skip
logging.getLogger("werkzeug").setLevel(logging.ERROR)


def recipe(word):
    """The program of the section that has this word, behind the one that makes the model."""
    section = (
        (ROOT / "docs" / "DEPLOYING.md")
        .read_text()
        .partition("\n### Local mode of the SDK\n")[2]
        .partition("\n### ")[0]
    )
    first, *others = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (found,) = [one for one in others if word in one]
    return first + found


class Version3(ContainerCase):
    """What ModelBuilder starts in its mode LOCAL_CONTAINER. The SDK itself would pull the image, and take port 8501."""

    def test_a_container_on_the_port_that_it_publishes(self):
        env = {
            "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
            "SAGEMAKER_PROGRAM": "inference.py",
            "LOCAL_PYTHON": "3.12.1",
            # From the recipe.
            "SAGEMAKER_BIND_TO_PORT": "8501",
            "SAGEMAKER_SAFE_PORT_RANGE": "9000-9999",
        }
        folder = self.folder()
        self.empty_model(folder, "1")
        (folder / "code").mkdir()
        (folder / "code" / "inference.py").write_text("def handler(data, context): return data.read(), 'text/plain'\n")
        options = ("--publish", f"{HOST}::8501")
        container = self.container(image("python"), folder, env=env, options=options)
        container.port = int(docker("port", container.id, "8501").rpartition(":")[2])
        container.wait_ready()
        self.check(self.invoke(container, "1.0", "text/csv"), "1.0", content_type="text/plain")


@unittest.skipIf(
    not SDK.exists(), "SKIPPED: the SDK is not installed: scripts/test.sh installs it into target/tools/sdk-v2"
)
class LocalMode(ContainerCase):
    @classmethod
    def setUpClass(cls):
        compose = subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
        if not compose and not shutil.which("docker-compose"):
            raise unittest.SkipTest("SKIPPED: there is no docker compose, which the SDK's local mode uses")
        # The SDK makes this network again when it needs it; one that is in use stays.
        cls.clean_up(docker, "network", "rm", "sagemaker-local", code=None)
        s3 = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
        s3.start()
        cls.clean_up(s3.stop)
        cls.address = "http://{}:{}".format(*s3.get_host_and_port())
        keys = {"aws_access_key_id": KEY, "aws_secret_access_key": "secret"}
        cls.store = boto3.client("s3", region_name=REGION, endpoint_url=cls.address, **keys)
        cls.store.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})

    def setUp(self):
        self.work = self.folder()

    def put(self, key, data):
        self.store.put_object(Bucket=BUCKET, Key=key, Body=data)

    def archive(self, name):
        """A model archive with a model of this name."""
        models = self.models(name)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            archive.add(models / name, name)
        return out.getvalue()

    def run_recipe(self, word, change=lambda program: program):
        port = free_ports()
        program = (
            recipe(word).replace(IMAGE, image("slim")).replace("8080", str(port)).replace("/tmp/", f"{self.work}/")
        )
        (self.work / "config.yaml").write_text(CONFIG)
        env = {
            "PATH": os.environ["PATH"],
            # Where the SDK puts what it mounts.
            "TMPDIR": str(self.work),
            "HOME": str(self.work),
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": self.address,
            "AWS_EC2_METADATA_DISABLED": "true",
            "SAGEMAKER_USER_CONFIG_OVERRIDE": str(self.work / "config.yaml"),
        }
        output = run(SDK, "-c", PREAMBLE + change(program), timeout=SDK_SECONDS, env=env)
        # What the SDK starts has the label of its image.
        left = docker("ps", "--quiet", "--filter", f"label={LABEL}", "--filter", f"publish={port}")
        self.assertEqual(left, "", output)
        return output

    def test_an_endpoint(self):
        self.put("models/model.tar.gz", self.archive("my_model"))
        self.assertIn("{'predictions': [3.5, 4.0, 5.5]}", self.run_recipe("model.deploy("))

    def test_batch_transform(self):
        self.put("models/model.tar.gz", self.archive("my_model"))
        (self.work / "input").mkdir()
        (self.work / "input" / "records.csv").write_text("1.0\n2.0\n5.0\n")

        def both(program):
            """Also one line at a time."""
            model, transform = program.split("transformer =", 1)
            single = transform.replace("MultiRecord", "SingleRecord").replace("/output", "/single")
            return f"{model}transformer ={transform}transformer ={single}"

        self.run_recipe("transformer.transform(", both)
        # The model gives three numbers whatever it is asked.
        for name, requests in (("output", 1), ("single", 3)):
            (found,) = (self.work / name).rglob("*.out")
            self.assertEqual(found.read_text(), "3.5\n4.0\n5.5\n" * requests)

    def test_a_multi_model_endpoint(self):
        self.put("models/model.tar.gz", self.archive("my_model"))
        for name in ("one", "two"):
            self.put(f"many-models/{name}.tar.gz", self.archive(name))
        output = self.run_recipe("MultiDataModel")
        self.assertIn("{'predictions': [3.5, 4.0, 5.5]}", output)
