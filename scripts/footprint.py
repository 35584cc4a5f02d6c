#!/usr/bin/env python3
"""Measures all flavors of images and their containers at rest. Run it from the root of the checkout.

  .venv/bin/python -m scripts.footprint           prints the tables
  .venv/bin/python -m scripts.footprint --write   writes them into docs/BENCHMARKS.md

It needs what the container tests need, and the executables with their lists of crates: scripts/executables.sh makes
them. It builds the images as those tests do, and removes them.
"""

import json
import re
import sys

from tests.containers.case import EXECUTABLES, ContainerCase, base_image, docker, image, missing
from tests.harness.constants import ROOT

PAGE = ROOT / "docs" / "BENCHMARKS.md"
MEGABYTE = 1e6
FLAVORS = ("slim", "python", "full")
# Parts of an image, as the table names them; `ours` is the sum of those after Python.
PARTS = {
    "python": "Python itself: interpreter, library, pip, what they need",
    "handlers": "packages for handlers: `requests`; in full those of docker/full",
    "executables": "our executables, with their SBOM",
    "lists": "SBOM of packages",
    "ours": "**ours in all** (all but Python itself)",
}
# The parts of an image in the order of the steps that make them, and a word of the first step of each.
NAMES = ("base", "python", "debian", "model server", "executables", "pypi", "lists")
WORDS = (None, "libpython", "$PYTHON_PACKAGES", "COPY", "COPY", "COPY", "check.sh")
# docker/stages/packages.sh writes it.
PYPI = "/usr/local/share/sagemaker-tfs/pypi-packages.txt"
HANDLER = "def input_handler(data, context): return data.read()\ndef output_handler(r, c): return r.content, 'x/y'\n"


def layers(image):
    """Sizes in bytes of the parts of an image, by the last steps of the Dockerfiles, in this order."""
    history = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image)
    sizes = [0]
    for line in reversed(history.splitlines()):
        size, _, step = line.partition("\t")
        if len(sizes) < len(WORDS) and WORDS[len(sizes)] in step:
            sizes.append(0)
        sizes[-1] += int(size)
    if len(sizes) < len(NAMES):
        raise ValueError(f"{image} is not made of the steps of docker/cpu/Dockerfile:\n{history}")
    found = dict(zip(NAMES, sizes))
    handlers = found["debian"] + found["pypi"]
    return {**found, "handlers": handlers, "ours": handlers + found["executables"] + found["lists"]}


def code_lines(folder):
    """Lines that are neither empty, nor comments, nor tests at the end of a file."""
    files = [file for file in folder.rglob("*") if file.suffix in (".rs", ".py")]
    codes = [file.read_text().partition("\n#[cfg(test)]\n")[0] for file in files]
    return sum(len(re.findall(r"^ *(?!//|#!|# )\S", code, re.MULTILINE)) for code in codes)


def crates(flavor, name):
    return len(json.loads((EXECUTABLES[flavor] / "sbom" / f"{name}.cdx.json").read_text())["components"])


def resident(container, name):
    """Memory in MB, and the part of it that is not pages of files, which the kernel can take back at any time."""
    # The kernel keeps 15 characters of a name.
    pids = [pid for pid, (found, _) in container.processes().items() if found == name[:15]]
    if not pids:
        return "–"
    status = dict(re.findall(r"^(\w+):\s+(\d+) kB$", container.shell(f"cat /proc/{pids[0]}/status"), re.MULTILINE))
    whole, own = (int(status[key]) * 1024 / MEGABYTE for key in ("VmRSS", "RssAnon"))
    return f"{whole:.1f} (its own: {own:.1f})"


def measure(case):
    """The tables by their names in the page."""
    sizes = [layers(image(flavor)) for flavor in FLAVORS]
    models = [case.models()] + [case.models(inference=HANDLER) for _ in FLAVORS[1:]]
    containers = [case.serve(flavor, folder) for flavor, folder in zip(FLAVORS, models)]
    for container in containers:
        case.invoke(container, "1.0")
    packages = "dpkg-query -W | wc -l"
    base = docker("run", "--rm", "--entrypoint", "sh", base_image(), "-c", packages)
    whole, python = code_lines(ROOT / "src"), code_lines(ROOT / "src" / "python")
    names = ("sagemaker-tfs", "sagemaker-tfs-python")
    return {
        "image": table(
            "MB (10^6 bytes, unpacked)",
            *([text, *(f"{one[part] / MEGABYTE:.1f}" for one in sizes)] for part, text in PARTS.items()),
        ),
        "numbers": table(
            "number",
            ["Debian packages", *(container.shell(packages) for container in containers)],
            ["of these, in the base image", base, base, base],
            ["packages from PyPI", *(container.shell(f"grep -c == {PYPI} || true") for container in containers)],
            ["crates", crates("slim", names[0]), *[crates("python", names[1])] * 2],
            ["lines of our own code", whole - python, whole, whole],
        ),
        "container": table(
            "at rest, after one request",
            ["processes, TensorFlow Serving included", *(len(container.processes()) for container in containers)],
            *([f"memory of `{name}`, MB", *(resident(container, name) for container in containers)] for name in names),
        ),
    }


def table(heading, *rows):
    return "".join(
        f"| {' | '.join(map(str, row))} |\n" for row in ([heading, *FLAVORS], ["---"] * (1 + len(FLAVORS)), *rows)
    )


def main():
    if sys.argv[1:] not in ([], ["--write"]):
        sys.exit(__doc__)
    if reason := missing():
        sys.exit(f"cannot measure: {reason}")
    case = ContainerCase()
    try:
        tables = measure(case)
    finally:
        case.doClassCleanups()
    page = PAGE.read_text()
    for name, text in tables.items():
        print(text)
        page = re.sub(f"(?<=<!-- {name}:start -->\n).*?(?=<!-- {name}:end -->)", text, page, flags=re.DOTALL)
    if sys.argv[1:]:
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
