"""The recipes of docs/DEPLOYING.md for the local mode of the SageMaker SDK, version 2: each program as it stands there, with the image,
the files and the port of this test in place of its names. Moto's S3 takes the place of Amazon's."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import unittest

import boto3
from moto.server import ThreadedMotoServer

from tests.documents.blocks import Document
from tests.harness.client import run
from tests.harness.constants import HOST, ROOT
from tests.harness.ports import free_ports

from .case import LABEL, ContainerCase, docker, engine_or_skip, image

SDK = ROOT / "target" / "tools" / "sdk-v2" / "bin" / "python"
# Goes in front of each program: the SDK would publish its port on every interface of this machine.
PREAMBLE = """
from sagemaker.local.image import _SageMakerContainer

original = _SageMakerContainer._create_docker_host
def on_loopback(*arguments):
    found = original(*arguments)
    found["ports"] = [f"127.0.0.1:{port}" for port in found["ports"]]
    return found
_SageMakerContainer._create_docker_host = on_loopback
"""
CONFIG = """
SchemaVersion: "1.0"
SageMaker:
  PythonSDK:
    Modules:
      TelemetryOptOut: true
"""
IMAGE = "sagemaker-tensorflow-serving:2.19-cpu"
BUCKET = "my-bucket"
REGION = "eu-west-1"
KEY = "AKIDLOCAL"


def setUpModule():
    engine_or_skip()
    if not SDK.exists():
        raise unittest.SkipTest("SKIPPED: the SDK is not installed: scripts/test.sh installs it into target/tools/sdk-v2")
    compose = subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
    if not compose and not shutil.which("docker-compose"):
        raise unittest.SkipTest("SKIPPED: there is no docker compose, which the SDK's local mode uses")


def recipe(word):
    """The program for local mode that has this word."""
    blocks = Document(ROOT / "docs" / "DEPLOYING.md").blocks
    (found,) = [one.text for one in blocks if one.language == "python" and "LocalSession" in one.text and word in one.text]
    return found


class LocalMode(ContainerCase):
    def setUp(self):
        self.work = self.folder()
        self.s3 = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
        self.s3.start()
        self.clean_up(self.s3.stop)
        self.address = "http://{}:{}".format(*self.s3.get_host_and_port())
        keys = {"aws_access_key_id": KEY, "aws_secret_access_key": "secret"}
        self.store = boto3.client("s3", region_name=REGION, endpoint_url=self.address, **keys)
        self.store.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})

    def put(self, key, data):
        self.store.put_object(Bucket=BUCKET, Key=key, Body=data)

    def archive(self, name):
        """A model archive with a model of this name."""
        models = self.models(name)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            archive.add(models / name, name)
        return out.getvalue()

    def run_recipe(self, word, **environment):
        port = free_ports()
        program = recipe(word).replace(IMAGE, image("slim")).replace("8080", str(port)).replace("/my/folder", str(self.work))
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
        output = run(SDK, "-c", PREAMBLE + program, timeout=240, env=env)
        # What the SDK starts has no label of ours, but its image has.
        self.assertEqual(docker("ps", "--quiet", "--filter", f"label={LABEL}", "--filter", f"publish={port}"), "")
        return output

    def test_an_endpoint(self):
        self.put("models/model.tar.gz", self.archive("my_model"))
        self.assertIn("{'predictions': [3.5, 4.0, 5.5]}", self.run_recipe("predictor.predict("))
