"""Dockerfiles, Kubernetes manifests, the compose file, workflows and documents: that each is what it should be.

The checkers are those of scripts/requirements/images.txt.
"""

import json
import re
import subprocess
import sys
import unittest

import kubernetes_validate
import yaml

from tests.harness.commands import run
from tests.harness.constants import ROOT

DOCKER = ROOT / "docker"
# The oldest Kubernetes that the manifests support, and the newest with a schema.
KUBERNETES = ("1.25", kubernetes_validate.latest_version())


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def check_schema(name, *files):
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}", *files)


class Dockerfiles(unittest.TestCase):
    def test_they_differ_only_in_where_they_begin(self):
        ends = {}
        for arch in ("cpu", "gpu", "eia"):
            head, mark, end = (DOCKER / arch / "Dockerfile").read_text().partition("# ---- The rest")
            self.assertTrue(mark)
            self.assertNotIn("\nFROM ", head)
            ends[arch] = end
        self.assertEqual(len(set(ends.values())), 1)

    def test_they_need_no_more_than_dockers_old_builder_has(self):
        text = (DOCKER / "cpu" / "Dockerfile").read_text()
        for newer in ("--mount", "--link", "--chmod", "--checksum", "<<", "# syntax"):
            self.assertNotIn(newer, text)

    def test_defaults_are_those_of_the_scripts(self):
        shared = (ROOT / "scripts" / "lib" / "images.sh").read_text()
        version = re.search(r"^DEFAULT_VERSION=(\S+)$", shared, re.M)[1]
        self.assertIn(f"tensorflow/serving:{version}.", (DOCKER / "cpu" / "Dockerfile").read_text())
        self.assertIn(f"tensorflow/serving:{version}.", (DOCKER / "gpu" / "Dockerfile").read_text())


class Kubernetes(unittest.TestCase):
    def validate(self, document):
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)

    def test_deployment(self):
        found = documents(DOCKER / "kubernetes" / "deployment.yaml")
        kinds = ["Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"]
        self.assertEqual([document["kind"] for document in found], kinds)
        for document in found:
            self.validate(document)

    def test_the_check_sees_mistakes(self):
        deployment = documents(DOCKER / "kubernetes" / "deployment.yaml")[0]
        deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            self.validate(deployment)

    def test_kserve(self):
        runtime, service = documents(DOCKER / "kubernetes" / "kserve.yaml")
        self.assertEqual((runtime["kind"], service["kind"]), ("ServingRuntime", "InferenceService"))
        spec = runtime["spec"]
        # KServe's own kinds have no schema here; what a runtime holds of a pod has.
        pod = {"containers": spec["containers"], "volumes": spec["volumes"]}
        self.validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod})
        self.assertEqual([container["name"] for container in spec["containers"]], ["kserve-container"])
        formats = [model["name"] for model in spec["supportedModelFormats"]]
        model = service["spec"]["predictor"]["model"]
        self.assertEqual(model["runtime"], runtime["metadata"]["name"])
        self.assertIn(model["modelFormat"]["name"], formats)

    def test_pods_have_time_to_end(self):
        pod = documents(DOCKER / "kubernetes" / "deployment.yaml")[0]["spec"]["template"]["spec"]
        pause = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
        self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], pause + 30)


class Compose(unittest.TestCase):
    def test_it_is_as_strict_as_the_tests_are(self):
        check_schema("compose-spec", DOCKER / "compose.yaml")
        (service,) = documents(DOCKER / "compose.yaml")[0]["services"].values()
        self.assertTrue(service["read_only"])
        self.assertEqual(service["tmpfs"], ["/tmp"])
        self.assertTrue(service["volumes"][0]["read_only"])
        self.assertEqual(service["stop_grace_period"], "30s")
        self.assertTrue(service["ports"][0].startswith("127.0.0.1:"))


class Workflows(unittest.TestCase):
    def test_rights_are_given_explicitly_and_commands_exist(self):
        files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
        self.assertTrue(files)
        check_schema("github-workflows", *files)
        for file in files:
            workflow = yaml.safe_load(file.read_text())
            self.assertIn("permissions", workflow, file)
            for job in workflow["jobs"].values():
                self.assertIn("timeout-minutes", job, file)
                for step in job["steps"]:
                    for command in re.findall(r"(?:\./)(scripts/\S+|\.ci/run)", step.get("run", "")):
                        self.assertTrue((ROOT / command).exists(), f"{file}: {command}")


class Documents(unittest.TestCase):
    """What DEPLOYING.md and the README of docker/ tell people to type."""

    FILES = (ROOT / "docs" / "DEPLOYING.md", ROOT / "docs" / "SECURITY.md", ROOT / "README.md")

    def blocks(self, language):
        for file in self.FILES:
            for block in re.findall(rf"^```{language}\n(.*?)^```", file.read_text(), re.M | re.S):
                yield file.name, block

    def test_python_json_and_yaml_can_be_read(self):
        found = 0
        for name, block in self.blocks("python"):
            compile(block, name, "exec")
            found += 1
        for _, block in self.blocks("json"):
            json.loads(block)
            found += 1
        for _, block in self.blocks("yaml"):
            yaml.safe_load(block)
            found += 1
        self.assertGreater(found, 3)

    def test_shell_blocks_are_shell(self):
        for name, block in self.blocks("sh"):
            done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, f"{name}:\n{block}\n{done.stderr}")

    def test_scripts_files_and_options_exist(self):
        for file in self.FILES:
            text = file.read_text()
            for path in re.findall(r"(?:\./)?((?:scripts|docker)/[\w./-]*\w)", text):
                self.assertTrue((ROOT / path).exists(), f"{file.name}: {path}")
            for script, rest in re.findall(r"\./scripts/([\w-]+\.sh)([^\n`&;|]*(?:\\\n[^\n`&;|]*)*)", text):
                known = (ROOT / "scripts" / script).read_text() + (ROOT / "scripts" / "lib" / "images.sh").read_text()
                for option in re.findall(r"(?<= )--[a-z][a-z0-9-]*", rest):
                    self.assertIn(option, known, f"{file.name}: {script} {option}")

    def test_links_lead_somewhere(self):
        for file in self.FILES:
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text()):
                self.assertTrue((file.parent / link).exists(), f"{file.name}: {link}")


if __name__ == "__main__":
    unittest.main()
