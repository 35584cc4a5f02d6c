"""What is in the images: programs, labels, sizes, the lists of what they are made of; and what build.sh refuses."""

import hashlib
import json
import subprocess
import sys
import unittest
import zlib

from harness import (
    EXECUTABLES, FAKE_MODEL_SERVER, ROOT, RUN, SLIM_EXECUTABLES, Case, Container, build, docker, engine_or_skip, image,
)  # fmt: skip

sys.path.insert(0, str(ROOT / "scripts"))
import footprint  # noqa: E402  (found through the line above)

setUpModule = engine_or_skip

SHARE = "/usr/local/share/sagemaker-tfs"
MEGABYTE = 1e6
# Promises of docs/FOOTPRINT.md.
SLIM_OWN_MEGABYTES = 15
PYTHON_OWN_MEGABYTES = 25


def inside(flavor, script, check=True):
    """Runs a shell script in a new container of the image."""
    return docker("run", "--rm", "--entrypoint", "sh", image(flavor), "-c", script, check=check)


class Contents(Case):
    def test_configuration(self):
        for flavor in ("slim", "python"):
            config = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", image(flavor)))
            self.assertEqual(config["Entrypoint"], ["sagemaker-tfs"])
            self.assertEqual(config["Cmd"], ["serve"])
            self.assertIn("SAGEMAKER_TFS_VERSION=2.19", config["Env"])
            self.assertEqual(list(config["ExposedPorts"]), ["8080/tcp"])
            for label in ("accept-bind-to-port", "multi-models"):
                self.assertEqual(config["Labels"][f"com.amazonaws.sagemaker.capabilities.{label}"], "true")
            self.assertEqual(config["Labels"]["sagemaker-tfs.flavor"], flavor)
            self.assertEqual(config["Labels"]["sagemaker-tfs.tensorflow-serving"], "2.19.0")

    def test_the_slim_image_has_no_python(self):
        found = inside("slim", "ldd /usr/local/bin/sagemaker-tfs; find / -xdev -name '*python*' ! -path '/usr/share/*'")
        self.assertNotIn("python", found)

    def test_the_python_image_has_what_handlers_import_most(self):
        self.assertEqual(inside("python", "python3 -c 'import requests; print(requests.get.__name__)'"), "get")
        self.assertIn("pip", inside("python", "python3 -m pip --version"))

    def test_nothing_of_the_build_is_left(self):
        for flavor in ("slim", "python"):
            places = "/src /built /out /docker /unpacked /usr/local/cargo /usr/local/rustup"
            empty = "/var/lib/apt/lists /var/cache/apt /sagemaker"
            left = f"ls -d {places} 2>/dev/null; find {empty} -type f -size +0 2>&1"
            self.assertEqual(inside(flavor, left, check=False), "")

    def test_sizes(self):
        slim, python = (footprint.layers(image(flavor)) for flavor in ("slim", "python"))
        self.assertLess(slim["ours"], SLIM_OWN_MEGABYTES * MEGABYTE)
        self.assertLess(python["ours"], PYTHON_OWN_MEGABYTES * MEGABYTE)
        # Or the measure would be of something else.
        self.assertGreater(slim["ours"], (SLIM_EXECUTABLES / "sagemaker-tfs").stat().st_size)
        self.assertEqual(slim["python"], 0)
        self.assertGreater(python["python"], 20 * MEGABYTE)


class Lists(Case):
    """Of crates and packages."""

    def setUp(self):
        if not (EXECUTABLES / "sbom" / "sagemaker-tfs.cdx.json").exists():
            self.skipTest("SKIPPED: the executables were made with --no-audit")

    def sbom(self, flavor, name):
        sbom = json.loads(inside(flavor, f"cat {SHARE}/sbom/{name}.cdx.json"))
        self.assertEqual(sbom["bomFormat"], "CycloneDX")
        return sbom

    def components(self, flavor, name):
        return {item["name"]: item for item in self.sbom(flavor, name)["components"]}

    def test_crates(self):
        crates = self.components("slim", "sagemaker-tfs")
        self.assertIn("ureq", crates)
        self.assertEqual(crates["ureq"]["purl"], f"pkg:cargo/ureq@{crates['ureq']['version']}")
        self.assertFalse({"pyo3", "proptest", "csv", "rusty-s3", "rustls"} & set(crates))
        self.assertIn("rusty-s3", self.components("python", "sagemaker-tfs"))
        self.assertIn("pyo3", self.components("python", "sagemaker-tfs-python"))
        self.assertEqual(inside("slim", f"ls {SHARE}/sbom"), "packages.cdx.json\nsagemaker-tfs.cdx.json")

    def test_no_path_of_the_machine_it_was_built_on(self):
        for name in ("sagemaker-tfs", "sagemaker-tfs-python"):
            for file in (EXECUTABLES / name, EXECUTABLES / "sbom" / f"{name}.cdx.json"):
                self.assertNotIn(str(ROOT).encode() + b"/src", file.read_bytes())
                self.assertNotIn(f"file://{ROOT}".encode(), file.read_bytes())

    def test_packages(self):
        for flavor in ("slim", "python"):
            packages = self.components(flavor, "packages")
            names = inside(flavor, "dpkg-query -W -f '${Package}\\n'").split()
            self.assertEqual(set(packages), {*names, "tensorflow_model_server"})
            self.assertRegex(packages["libc6"]["purl"], r"^pkg:deb/(debian|ubuntu)/libc6@[^ :+~]*\?arch=")
            digest = hashlib.sha256(FAKE_MODEL_SERVER.read_bytes()).hexdigest()
            self.assertEqual(packages["tensorflow_model_server"]["hashes"][0]["content"], digest)
            self.assertEqual(packages["tensorflow_model_server"]["version"], "2.19.0")

    def test_executables_carry_their_list(self):
        for name, other in (("sagemaker-tfs", False), ("sagemaker-tfs-python", True)):
            folder = self.folder()
            section = folder / "section"
            copy = ["objcopy", f"--dump-section=.dep-v0={section}", str(EXECUTABLES / name), str(folder / "copy")]
            subprocess.run(copy, check=True, timeout=60)
            crates = {crate["name"] for crate in json.loads(zlib.decompress(section.read_bytes()))["packages"]}
            self.assertIn("ureq", crates)
            self.assertEqual("pyo3" in crates, other)


class Refusals(Case):
    def refused(self, *options):
        done = build("--flavor", "slim", *options, check=False)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def test_a_model_server_with_another_checksum(self):
        text = self.refused("--model-server", FAKE_MODEL_SERVER, "--sha256", "0" * 64)
        self.assertIn("has the checksum", text)
        self.assertNotIn("Step 1", text)

    def test_an_archive_without_a_model_server(self):
        archive = self.folder() / "other.tar.gz"
        subprocess.run(["tar", "-czf", archive, "-C", ROOT, "LICENSE"], check=True)
        self.assertIn("there is no tensorflow_model_server", self.refused("--model-server", archive))

    def test_executables_that_do_not_run_on_the_base_image(self):
        # The image that has all is the base, so that this is quick: its check must see what was broken.
        self.assertIn(
            "not on PATH", inside("slim", f"rm /usr/bin/tensorflow_model_server; {SHARE}/check.sh", check=False)
        )
        broken = "echo >/usr/local/bin/sagemaker-tfs"
        self.assertIn("does not run on this base image", inside("slim", f"{broken}; {SHARE}/check.sh", check=False))
        moved = "mv /lib/*/libpython3* /tmp"
        self.assertIn("libpython3", inside("python", f"{moved}; {SHARE}/check.sh", check=False))
        older = "printf '#!/bin/sh\\necho 3.1\\n' >/usr/local/bin/python3; chmod 755 /usr/local/bin/python3"
        self.assertIn("python3 is 3.1 here", inside("python", f"{older}; {SHARE}/check.sh", check=False))


class Sources(Case):
    """Where the model server comes from, beside a file."""

    def serves(self, name):
        container = Container(name, self.models())
        self.addCleanup(container.remove)
        self.check(container.wait_ready().invoke("1.0"))
        return container

    def test_from_an_image(self):
        # Any image with the program will do for TensorFlow Serving's.
        build("--version", "2.18", "--flavor", "slim", "--model-server-image", image("slim"))
        self.serves(f"{RUN}/serving:2.18-cpu-slim")

    def test_a_gpu_image_is_made_on_the_one_that_has_it(self):
        other = image("slim")
        build("--version", "2.17", "--arch", "gpu", "--flavor", "slim", "--model-server-image", other, base=False)
        gpu = f"{RUN}/serving:2.17-gpu-slim"
        self.serves(gpu)
        found = [json.loads(docker("image", "inspect", "--format", "{{json .}}", name)) for name in (other, gpu)]
        below, whole = (one["RootFS"]["Layers"] for one in found)
        self.assertEqual(whole[: len(below)], below)
        # The program is there once, not a second time in a layer of ours.
        added = found[1]["Size"] - found[0]["Size"]
        self.assertLess(added, (SLIM_EXECUTABLES / "sagemaker-tfs").stat().st_size + MEGABYTE)
        self.assertGreater(FAKE_MODEL_SERVER.stat().st_size, 2 * MEGABYTE)

    def test_from_an_archive(self):
        folder = self.folder()
        (folder / "inner").mkdir()
        program = folder / "inner" / "amazonei_tensorflow_model_server"
        program.write_bytes(FAKE_MODEL_SERVER.read_bytes())
        archive = folder / "archive.tar.gz"
        subprocess.run(["tar", "-czf", archive, "-C", folder, "inner"], check=True)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        build("--version", "1.15", "--arch", "eia", "--flavor", "slim", "--model-server", archive, "--sha256", digest)
        container = self.serves(f"{RUN}/serving:1.15-cpu-slim")
        self.assertEqual(container.shell("echo $SAGEMAKER_TFS_VERSION"), "1.15")


if __name__ == "__main__":
    unittest.main()
