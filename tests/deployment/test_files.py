"""Dockerfiles, Kubernetes manifests, the compose file, and workflows: that each is what it should be.

The checkers are those of scripts/requirements/images.txt.
"""

import ast
import re
import sys
import unittest

import kubernetes_validate
import yaml

from tests.harness.client import run
from tests.harness.constants import ROOT

DOCKER = ROOT / "docker"
# The oldest Kubernetes that the manifests support, and the newest with a schema.
KUBERNETES = ("1.25", kubernetes_validate.latest_version())


DOCKERFILES = {arch: (DOCKER / arch / "Dockerfile").read_text() for arch in ("cpu", "gpu", "eia")}


def documents(name):
    return [document for document in yaml.safe_load_all((DOCKER / name).read_text()) if document]


def check_schema(name, *files):
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}", *files)


class Dockerfiles(unittest.TestCase):
    def test_they_differ_only_in_where_they_begin(self):
        heads, marks, ends = zip(*(text.partition("# ---- The rest") for text in DOCKERFILES.values()), strict=True)
        self.assertTrue(all(marks))
        self.assertNotIn("\nFROM ", "".join(heads))
        self.assertEqual(len(set(ends)), 1)

    def test_they_need_no_more_than_dockers_old_builder_has(self):
        for newer in ("--mount", "--link", "--chmod", "--checksum", "<<", "# syntax"):
            self.assertNotIn(newer, DOCKERFILES["cpu"])

    def test_defaults_are_those_of_the_scripts(self):
        shared = (ROOT / "scripts" / "lib" / "images.sh").read_text()
        version = re.search(r"^DEFAULT_VERSION=(\S+)$", shared, re.M)[1]
        for arch in ("cpu", "gpu"):
            self.assertIn(f"tensorflow/serving:{version}.", DOCKERFILES[arch])


class Lock(unittest.TestCase):
    """Of the packages of the flavor full."""

    def test_it_has_checksums_and_everything_that_is_wanted(self):
        texts = {
            name: (DOCKER / "full" / f"{name}.txt").read_text() for name in ("packages", "packages-no-deps", "lock")
        }
        locked = re.findall(r"^([\w-]+)==\S+.*(?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+$", texts["lock"], re.M)
        self.assertEqual(len(locked), len(re.findall(r"^[^#\s]", texts["lock"], re.M)))
        wanted = {name for text in list(texts.values())[:2] for name in re.findall(r"^[\w-]+", text, re.M)}
        self.assertLessEqual(wanted, set(locked))
        # tensorflow-serving-api must not bring it.
        self.assertFalse([name for name in locked if name.startswith("tensorflow") and name not in wanted])
        hints = ROOT / "src" / "python" / "hints.py"
        if not hints.exists():
            self.skipTest("SKIPPED: there is no table of the modules whose absence names the flavor full")
        (table,) = re.findall(r"^_PACKAGES = (\{.*?^\})", hints.read_text(), re.M | re.S)
        self.assertLessEqual({text.split()[0] for text in ast.literal_eval(table).values()}, set(locked))


class Kubernetes(unittest.TestCase):
    def setUp(self):
        self.deployment = documents("kubernetes/deployment.yaml")
        self.pod = self.deployment[0]["spec"]["template"]["spec"]

    def validate(self, document):
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)

    def test_deployment(self):
        kinds = ["Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"]
        self.assertEqual([document["kind"] for document in self.deployment], kinds)
        for document in self.deployment:
            self.validate(document)

    def test_the_check_sees_mistakes(self):
        self.pod["containers"][0]["readinesProbe"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            self.validate(self.deployment[0])

    def test_kserve(self):
        runtime, service = documents("kubernetes/kserve.yaml")
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
        pause = int(self.pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
        self.assertGreaterEqual(self.pod["terminationGracePeriodSeconds"], pause + 30)


class Others(unittest.TestCase):
    def test_the_compose_file_is_as_strict_as_the_tests_are(self):
        check_schema("compose-spec", DOCKER / "compose.yaml")
        (service,) = documents("compose.yaml")[0]["services"].values()
        self.assertEqual(service, service | {"read_only": True, "tmpfs": ["/tmp"], "stop_grace_period": "30s"})
        self.assertTrue(service["volumes"][0]["read_only"])
        self.assertTrue(service["ports"][0].startswith("127.0.0.1:"))

    def test_workflows_give_rights_explicitly_and_their_commands_exist(self):
        files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
        check_schema("github-workflows", *files)  # fails without files
        for file in files:
            workflow = yaml.safe_load(file.read_text())
            self.assertIn("permissions", workflow, file)
            for job in workflow["jobs"].values():
                self.assertIn("timeout-minutes", job, file)
                for step in job["steps"]:
                    for command in re.findall(r"(?:\./)(scripts/\S+|\.ci/run)", step.get("run", "")):
                        self.assertTrue((ROOT / command).exists(), f"{file}: {command}")
