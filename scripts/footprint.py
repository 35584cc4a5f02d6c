#!/usr/bin/env python3
"""Measures images and a container at rest, and writes docs/FOOTPRINT.md.

  scripts/footprint.py           prints the page
  scripts/footprint.py --write   writes it to docs/FOOTPRINT.md

It needs what the container tests need (tests/containers): a Docker engine, mmdebstrap, and the executables of
scripts/executables.sh. It builds both flavors as those tests do, and removes them at the end.
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "FOOTPRINT.md"


def layers(image):
    """Sizes in bytes of what an image of ours is made of: base, python, packages, model server, executables, lists;
    `ours` is the sum of packages, executables and lists. The Dockerfiles end with these steps, in this order."""
    history = subprocess.run(
        ["docker", "history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    steps = [line.split("\t", 1) for line in history.stdout.splitlines()][::-1]  # from the first on
    found = dict.fromkeys(("base", "python", "packages", "model server", "executables", "lists"), 0)
    copied = iter(("model server", "executables"))
    part = "base"
    for size, step in steps:
        if "libpython" in step:
            part = "python"
        elif "$PYTHON_PACKAGES" in step and part == "python":
            part = "packages"
        elif "COPY" in step and part in ("packages", "model server"):
            part = next(copied)
        elif "check.sh" in step and part == "executables":
            part = "lists"
        found[part] += int(size)
    if part != "lists":
        raise ValueError(f"{image} is not made of the steps of docker/cpu/Dockerfile: {steps}")
    found["ours"] = found["packages"] + found["executables"] + found["lists"]
    return found


def code_lines(folder):
    """Lines that are neither empty, nor comments, nor tests at the end of a file."""
    count = 0
    for file in folder.rglob("*"):
        if file.suffix not in (".rs", ".py"):
            continue
        for line in file.read_text().splitlines():
            if line == "#[cfg(test)]":
                break
            text = line.strip()
            count += bool(text) and not text.startswith(("//", "#!", "# ")) and text != "#"
    return count


def crates(sbom):
    return len(json.loads(sbom.read_text())["components"])


def measure():
    sys.path.insert(0, str(ROOT / "tests" / "containers"))
    import harness

    reason = harness.missing()
    if reason:
        sys.exit(f"cannot measure: {reason}")
    case = harness.Case()
    script = "def input_handler(data, context): return data.read()\ndef output_handler(r, c): return r.content, 'x/y'\n"
    found = {}
    try:
        for flavor in ("slim", "python"):
            models = case.models()
            if flavor == "python":
                (models / "code").mkdir()
                (models / "code" / "inference.py").write_text(script)
            container = case.start(flavor, models).wait_ready()
            container.invoke("1.0")
            processes = container.processes()
            found[flavor] = {
                "layers": layers(harness.image(flavor)),
                "packages": int(container.shell("dpkg-query -W | wc -l")),
                "processes": sorted(name for name, _, _ in processes.values()),
                "memory": {
                    name: memory(container, number)
                    for number, (name, _, _) in processes.items()
                    if name.startswith("sagemaker-tfs")
                },
            }
        found["base packages"] = int(
            harness.docker("run", "--rm", "--entrypoint", "sh", harness.base_image(), "-c", "dpkg-query -W | wc -l")
        )
        found["release"] = " ".join(harness.release())
        found["crates"] = {
            "slim": crates(harness.SLIM_EXECUTABLES / "sbom" / "sagemaker-tfs.cdx.json"),
            "python": crates(harness.EXECUTABLES / "sbom" / "sagemaker-tfs-python.cdx.json"),
        }
    finally:
        case.doCleanups()
    return found


def memory(container, number):
    """Resident memory of a process in MB, and what of it is its own: not pages of files, which can be given back."""
    status = dict(
        line.split(":", 1) for line in container.shell(f"cat /proc/{number}/status").splitlines() if ":" in line
    )
    return tuple(int(status[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "RssAnon"))


def page(found):
    slim, python = found["slim"], found["python"]

    def row(label, key):
        return f"| {label} | " + " | ".join(f"{one['layers'][key] / 1e6:.1f}" for one in (slim, python)) + " |"

    def processes(one):
        return f"{len(one['processes'])}"

    def resident(one, name):
        if name not in one["memory"]:
            return "-"
        whole, own = one["memory"][name]
        return f"{whole:.1f} (its own: {own:.1f})"

    lines = {"whole": code_lines(ROOT / "src"), "python": code_lines(ROOT / "src" / "python")}
    # The kernel keeps 15 characters of a name.
    worker = "sagemaker-tfs-python"[:15]
    return f"""# Footprint

What an image holds beside TensorFlow Serving, and what a container of it needs. Generated by
`scripts/footprint.py --write`; figures for memory change a little from run to run.

Base image of this run: a minimal {found["release"]}. TensorFlow Serving itself is left out everywhere: its size is that
of the version you choose, some hundred MB.

## Image

| MB (10^6 bytes, unpacked) | slim | python |
|---|---|---|
{row("Python itself: interpreter, library, pip, what they need", "python")}
{row("packages for handlers: `requests`", "packages")}
{row("our executables, with their SBOM", "executables")}
{row("SBOM of packages", "lists")}
{row("**ours in all** (all but Python itself)", "ours")}

The tests fail when ours in all is 15 MB or more in the slim image, 25 MB or more in the other.

| number | slim | python |
|---|---|---|
| Debian packages | {slim["packages"]} | {python["packages"]} |
| of these, in the base image | {found["base packages"]} | {found["base packages"]} |
| crates | {found["crates"]["slim"]} | {found["crates"]["python"]} |
| lines of our own code | {lines["whole"] - lines["python"]} | {lines["whole"]} |

Lines are those that are neither empty, nor comments, nor unit tests. Crates are all that the executables are built
from, those of crates included.

## Container

With one TensorFlow Serving process and, in the python image, a handler.

| at rest, after one request | slim | python |
|---|---|---|
| processes, TensorFlow Serving included | {processes(slim)} | {processes(python)} |
| memory of `sagemaker-tfs`, MB | {resident(slim, "sagemaker-tfs")} | {resident(python, "sagemaker-tfs")} |
| memory of `sagemaker-tfs-python`, MB | {resident(slim, worker)} | {resident(python, worker)} |

Memory is resident memory; "its own" is what is not pages of files, which the kernel can take back at any time.
"""


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--write"]):
        sys.exit(__doc__)
    text = page(measure())
    if sys.argv[1:]:
        PAGE.write_text(text)
        print(f"wrote {PAGE.relative_to(ROOT)}")
    else:
        print(text)
