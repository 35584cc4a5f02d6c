"""Runs every command of the documents, as it stands there.

A document's blocks that are marked `sh` run one after the other in one shell, as a reader would type them. The shell
sees the checkout through an overlay, so nothing stays behind, and has a network of its own, so port 8080 is free and
nothing leaves the machine: reader.sh prepares it. A server that a block starts runs until the next one, or the end;
Ctrl-C must end it with exit code 0. What a document shows below commands is all that they print; `...` is anything.

Commands of programs that need an account, a cluster or a registry (aws, kubectl, docker, mmdebstrap) go to the stubs
beside this file, which check what they get. Commands of `.ci/run` are run there, not here."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tests.harness.client import run
from tests.harness.constants import ROOT

from .blocks import documents

STUBS = Path(__file__).with_name("stubs")
READER = Path(__file__).with_name("reader.sh")
SECONDS = 900
END = "=== all commands have run"
SERVES = "sagemaker-tfs serve"
SERVER = f"target/release/{SERVES} --listen 127.0.0.1 --model-server scripts/tensorflow_model_server"

# Documents whose examples need a server that they do not start themselves. Files they need: reader.sh.
WITH_SERVER = {"docs/GUIDE.md", "docs/DEPLOYING.md"}


def namespaces() -> list[str]:
    """The command that runs another one apart from this system; a loud skip where there is no way to."""
    base = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    for prefix in ([], ["sudo", "--non-interactive", "--preserve-env"]):
        if prefix and not shutil.which(prefix[0]):
            continue
        if subprocess.run([*prefix, *base, "true"], capture_output=True).returncode == 0:
            return [*prefix, *base]
    raise unittest.SkipTest("SKIPPED: commands of documents: namespaces need root, or sudo without a password")


def elsewhere() -> set[str]:
    """The commands that `.ci/run` runs, and one of scripts/test.sh that takes minutes."""
    ci, tests = ((ROOT / name).read_text() for name in (".ci/run", "scripts/test.sh"))
    found = re.findall(r"^(?:\S+=\S+ )?(\./scripts/[^|\n]*?) \|\|", ci, re.M)
    return {*found, *re.findall(r"\./scripts/executables\.sh --out \S+ --python /usr/bin/python3", tests)}


def without_comments(command: str) -> str:
    return re.sub(r"\s+#.*", "", command).strip()


class Story:
    """The script that types a document, and what must come of it."""

    def __init__(self, document, folder: Path):
        self.folder = folder
        self.document = document
        self.lines = [f". {READER} {document.name}"]
        #: Shown output, by the marker of the commands before it.
        self.shown: dict[str, str] = {}
        if document.name in WITH_SERVER:
            self.serve(f"exec {SERVER} --model-dir models")
        after_commands = None
        for block in document.blocks:
            self.save_files(block)
            if block.language == "sh":
                after_commands = self.run(block)
            elif not block.language:
                self.shown[after_commands] = block.text
                if '{"error"' in block.text:
                    # curl's code for a status above 399.
                    self.lines[-1] = f"set +e; (set -e\n{self.lines[-1]}); code=$?; set -e; ((code == 22))"
        self.lines.append(f"[[ $- == *e* ]] && stop_server && echo && echo '{END}'")

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def serve(self, text: str) -> None:
        self.lines.append(f"start_server {self.write(f'serve-{len(self.lines)}.sh', text)}")

    def save_files(self, block) -> None:
        """Readers save what the text above a block tells them to."""
        places = []
        for anchor, place in re.findall(r"save\s+the\s+\[[^]]+\]\(#([\w-]+)\)\s+as\s+`([^`]+)`", block.before):
            places.append((place, self.document.section(anchor)[0].text))
        if block.language != "sh" and (found := re.search(r"(?:^|in |as )`([\w./]+\.(?:py|json))`:$", block.before)):
            places.append((found[1], block.text))
        for place, text in places:
            source = self.write(f"file-{len(self.lines)}", text)
            self.lines.append(f"mkdir -p $(dirname {place}) && cp {source} {place}")

    def run(self, block) -> str:
        """Adds the commands of a block; the marker that stands before their output."""
        marker = f"=== {self.document.name}:{block.line}"
        self.lines.append(f"echo; echo '{marker}'")
        run_there = elsewhere()
        text = "".join(f"{line}\n" for line in block.text.splitlines() if without_comments(line) not in run_there)
        if SERVES in text:
            self.serve(text)
        else:
            self.lines.append(text)
        return marker


class Commands(unittest.TestCase):
    """One test a document, made below."""

    maxDiff = None

    def check(self, document):
        separate = namespaces()
        with tempfile.TemporaryDirectory(prefix="documents-") as name:
            folder = Path(name)
            (folder / "scratch").mkdir()
            story = Story(document, folder)
            script = story.write("type.sh", "\n".join(story.lines))
            env = {**self.environment(), "SCRATCH": str(folder / "scratch")}
            printed = run("env", "-C", ROOT, *separate, "bash", script, timeout=SECONDS, env=env)
        self.assertTrue(printed.endswith(f"{END}\n"), f"a block ends the shell, or ignores errors:\n{printed[-2000:]}")
        for marker, shown in story.shown.items():
            output = printed.partition(marker + "\n")[2].partition("\n=== ")[0]
            # Answers have no line end of their own, so those are not compared.
            flat = re.sub(r"curl: \(22\).*\n", "", output).replace("\n", "")
            pattern = ".*".join(map(re.escape, shown.replace("\n", "").split("...")))
            self.assertRegex(flat, f"^{pattern}$", f"{marker} does not print what the document shows")

    @staticmethod
    def environment():
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SAGEMAKER_", "AWS_"))}
        # The stub of the AWS CLI needs the package awscli, which stands in the same requirements as what runs this.
        return {**kept, "PATH": f"{STUBS}:{kept['PATH']}", "STUB_PYTHON": sys.executable, "AWS_REGION": "eu-west-1"}


for document in documents():
    if any(block.language == "sh" for block in document.blocks):
        name = re.sub(r"\W+", "_", document.name.removesuffix(".md").lower())
        setattr(Commands, f"test_{name}", lambda self, document=document: self.check(document))
