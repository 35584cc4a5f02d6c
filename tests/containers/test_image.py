"""What is in the images: programs, labels, sizes, the lists of what they are made of; and what build.sh refuses."""

import hashlib
import json
import zlib

from scripts.footprint import MEGABYTE, layers
from tests.harness.client import run
from tests.harness.constants import FAKE_MODEL_SERVER, ROOT

from .case import EXECUTABLES, RUN, ContainerCase, build, docker, engine_or_skip, image, inspect

setUpModule = engine_or_skip

SHARE = "/usr/local/share/sagemaker-tfs"
# Promises of docs/BENCHMARKS.md.
SLIM_OWN_MEGABYTES = 15
PYTHON_OWN_MEGABYTES = 25
# Shell scripts that break the image of a flavor, and what its check then says.
BROKEN = (
    ("slim", "rm /usr/bin/tensorflow_model_server", "not on PATH"),
    ("slim", "echo >/usr/local/bin/sagemaker-tfs", "does not run on this base image"),
    ("python", "mv /lib/*/libpython3* /tmp", "libpython3"),
    ("python", "echo 'echo 3.1' >/usr/local/bin/python3; chmod +x /usr/local/bin/python3", "python3 is 3.1 here"),
)


def inside(flavor, script, code=0):
    """The output of a shell script in a new container of the image."""
    return docker("run", "--rm", "--entrypoint", "sh", image(flavor), "-c", script, code=code)


class Contents(ContainerCase):
    def test_both_flavors(self):
        places = "/src /built /out /docker /unpacked /usr/local/cargo /usr/local/rustup"
        empty = "/var/lib/apt/lists /var/cache/apt /sagemaker"
        for flavor in ("slim", "python"):
            config = inspect(image(flavor))["Config"]
            self.assertEqual((config["Entrypoint"], config["Cmd"]), (["sagemaker-tfs"], ["serve"]))
            self.assertIn("SAGEMAKER_TFS_VERSION=2.19", config["Env"])
            self.assertEqual(list(config["ExposedPorts"]), ["8080/tcp"])
            for label in ("accept-bind-to-port", "multi-models"):
                self.assertEqual(config["Labels"][f"com.amazonaws.sagemaker.capabilities.{label}"], "true")
            self.assertEqual(config["Labels"]["sagemaker-tfs.flavor"], flavor)
            self.assertEqual(config["Labels"]["sagemaker-tfs.tensorflow-serving"], "2.19.0")
            # Nothing of the build is left.
            left = f"ls -d {places} 2>/dev/null; find {empty} -type f -size +0 2>&1"
            self.assertEqual(inside(flavor, left, code=None), "")

    def test_python_is_in_one_of_them(self):
        found = inside("slim", "ldd /usr/local/bin/sagemaker-tfs; find / -xdev -name '*python*' ! -path '/usr/share/*'")
        self.assertNotIn("python", found)
        self.assertEqual(inside("python", "python3 -c 'import requests; print(requests.get.__name__)'"), "get")
        self.assertIn("pip", inside("python", "python3 -m pip --version"))

    def test_sizes(self):
        slim, python = (layers(image(flavor)) for flavor in ("slim", "python"))
        self.assertLess(slim["ours"], SLIM_OWN_MEGABYTES * MEGABYTE)
        self.assertLess(python["ours"], PYTHON_OWN_MEGABYTES * MEGABYTE)
        # The limits would hold if something else were measured; this would not.
        self.assertGreater(slim["ours"], (EXECUTABLES["slim"] / "sagemaker-tfs").stat().st_size)
        self.assertEqual(slim["python"], 0)
        self.assertGreater(python["python"], 20 * MEGABYTE)


class Lists(ContainerCase):
    """Of crates and packages."""

    def setUp(self):
        if not (EXECUTABLES["python"] / "sbom" / "sagemaker-tfs.cdx.json").exists():
            self.skipTest("SKIPPED: the executables were made with --no-audit")

    def components(self, flavor, name):
        sbom = json.loads(inside(flavor, f"cat {SHARE}/sbom/{name}.cdx.json"))
        self.assertEqual(sbom["bomFormat"], "CycloneDX")
        return {item["name"]: item for item in sbom["components"]}

    def test_crates(self):
        crates = self.components("slim", "sagemaker-tfs")
        self.assertEqual(crates["ureq"]["purl"], f"pkg:cargo/ureq@{crates['ureq']['version']}")
        self.assertFalse({"pyo3", "proptest", "csv", "rusty-s3", "rustls"} & set(crates))
        self.assertIn("rusty-s3", self.components("python", "sagemaker-tfs"))
        self.assertIn("pyo3", self.components("python", "sagemaker-tfs-python"))
        self.assertEqual(inside("slim", f"ls {SHARE}/sbom"), "packages.cdx.json\nsagemaker-tfs.cdx.json")

    def test_packages(self):
        digest = hashlib.sha256(FAKE_MODEL_SERVER.read_bytes()).hexdigest()
        for flavor in ("slim", "python"):
            packages = self.components(flavor, "packages")
            names = inside(flavor, "dpkg-query -W -f '${Package}\\n'").split()
            self.assertEqual(set(packages), {*names, "tensorflow_model_server"})
            self.assertRegex(packages["libc6"]["purl"], r"^pkg:deb/(debian|ubuntu)/libc6@[^ :+~]*\?arch=")
            self.assertEqual(packages["tensorflow_model_server"]["hashes"][0]["content"], digest)
            self.assertEqual(packages["tensorflow_model_server"]["version"], "2.19.0")

    def test_executables_carry_their_list_and_no_path_of_this_machine(self):
        for name, has_python in (("sagemaker-tfs", False), ("sagemaker-tfs-python", True)):
            executable = EXECUTABLES["python"] / name
            section, copy = (self.folder() / "file" for _ in range(2))
            run("objcopy", f"--dump-section=.dep-v0={section}", executable, copy)
            crates = {crate["name"] for crate in json.loads(zlib.decompress(section.read_bytes()))["packages"]}
            self.assertIn("ureq", crates)
            self.assertEqual("pyo3" in crates, has_python)
            for file in (executable, EXECUTABLES["python"] / "sbom" / f"{name}.cdx.json"):
                self.assertNotIn(str(ROOT).encode() + b"/src", file.read_bytes())
                self.assertNotIn(f"file://{ROOT}".encode(), file.read_bytes())


class ModelServers(ContainerCase):
    """Where the model server comes from, apart from a file; and what is refused."""

    def archive(self, name, content):
        folder = self.folder()
        (folder / "inner").mkdir()
        (folder / "inner" / name).write_bytes(content)
        run("tar", "-czf", folder / "archive.tar.gz", "-C", folder, "inner")
        return folder / "archive.tar.gz"

    def check_serves(self, tag):
        container = self.container(f"{RUN}/serving:{tag}", self.models()).wait_ready()
        self.check_predictions(self.invoke(container, "1.0"))
        return container

    def test_from_an_image(self):
        # Any image that has the program can stand for TensorFlow Serving's.
        build("--version", "2.18", "--flavor", "slim", "--model-server-image", image("slim"))
        self.check_serves("2.18-cpu-slim")

    def test_a_gpu_image_is_made_on_the_one_that_has_it(self):
        other = image("slim")
        build("--version", "2.17", "--arch", "gpu", "--flavor", "slim", "--model-server-image", other, base=False)
        self.check_serves("2.17-gpu-slim")
        below, whole = inspect(other), inspect(f"{RUN}/serving:2.17-gpu-slim")
        layers_below = below["RootFS"]["Layers"]
        self.assertEqual(whole["RootFS"]["Layers"][: len(layers_below)], layers_below)
        # The program is there once, not a second time in a layer of ours.
        limit = (EXECUTABLES["slim"] / "sagemaker-tfs").stat().st_size + MEGABYTE
        self.assertLess(whole["Size"] - below["Size"], limit)
        self.assertGreater(FAKE_MODEL_SERVER.stat().st_size, 2 * MEGABYTE)

    def test_from_an_archive(self):
        archive = self.archive("amazonei_tensorflow_model_server", FAKE_MODEL_SERVER.read_bytes())
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        build("--version", "1.15", "--arch", "eia", "--flavor", "slim", "--model-server", archive, "--sha256", digest)
        self.assertEqual(self.check_serves("1.15-cpu-slim").shell("echo $SAGEMAKER_TFS_VERSION"), "1.15")

    def test_what_is_refused(self):
        options = ("--flavor", "slim", "--model-server")
        text = build(*options, FAKE_MODEL_SERVER, "--sha256", "0" * 64, code=1)
        self.assertIn("has the checksum", text)
        self.assertNotIn("Step 1", text)
        text = build(*options, self.archive("other", b""), code=1)
        self.assertIn("there is no tensorflow_model_server", text)
        # The images that are there stand for base images, which saves building others.
        for flavor, script, words in BROKEN:
            self.assertIn(words, inside(flavor, f"{script}; {SHARE}/check.sh", code=None))
