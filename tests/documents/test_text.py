"""Links, paths, options and code in the documents: that what they name exists."""

import json
import re
import unittest

import yaml

from tests.harness.client import run
from tests.harness.constants import ROOT

from .blocks import documents

DOCUMENTS = documents()
# What paths in the documents may be relative to, and what only exists once a script has made it.
FOLDERS = [ROOT, *(ROOT / name for name in ("src", "docker", "tests/integration"))]
MADE_BY_SCRIPTS = re.compile(r"fuzz/artifacts|target/|code/|\.venv|\.models|models?/|my_models?/|export/")
FILE = re.compile(
    r"[\w.-][\w./-]*/[\w.-]+\.(?:rs|py|sh|toml|ya?ml|md|conf)"
    r"|(?:src|tests|scripts|docker|docs|fuzz)/[\w./-]*"
)


class Text(unittest.TestCase):
    def every(self, kind):
        """Each document with each of its links, code spans or blocks."""
        found = [(document, item) for document in DOCUMENTS for item in getattr(document, kind)]
        self.assertGreater(len(found), 20)
        return found

    def assert_none(self, problems):
        self.assertEqual("\n".join(problems), "")

    def test_links_lead_to_files_and_headings(self):
        by_path = {document.path: document for document in DOCUMENTS}
        problems = []
        for document, link in self.every("links"):
            if link.startswith("https://"):
                continue
            path, _, anchor = link.partition("#")
            target = (document.path.parent / path).resolve() if path else document.path
            if not target.exists() or anchor and anchor not in by_path[target].anchors:
                problems.append(f"{document.name}: {link}")
        self.assert_none(problems)

    def test_files_that_are_named_exist(self):
        problems, count = [], 0
        for document, code in self.every("code"):
            if FILE.fullmatch(code) and not MADE_BY_SCRIPTS.match(code):
                count += 1
                if not any((folder / code).exists() for folder in FOLDERS):
                    problems.append(f"{document.name}: {code}")
        self.assert_none(problems)
        self.assertGreater(count, 100)

    def test_scripts_and_their_options_exist(self):
        problems, count = [], 0
        shared = "\n".join(path.read_text() for path in (ROOT / "scripts").glob("lib/*.sh"))
        texts = [(document, block.text) for document, block in self.every("blocks")]
        for document, text in [*texts, *self.every("code")]:
            for script, rest in re.findall(r"\./scripts/([\w-]+\.sh)([^\n&;|#]*(?:\\\n[^\n&;|#]*)*)", text):
                source = ROOT / "scripts" / script
                if not source.exists():
                    problems.append(f"{document.name}: {script}")
                    continue
                parts = [source, *(ROOT / "scripts" / source.stem).rglob("*.py")]
                parts += (ROOT / "tests" / source.stem).rglob("*.rs")
                known = "\n".join([shared, *(part.read_text() for part in parts)])
                for option in re.findall(r"(?<= )--([a-z][a-z0-9-]*)", rest):
                    count += 1
                    if not re.search(rf'(--|"){option}\b', known):
                        problems.append(f"{document.name}: {script} --{option}")
        self.assert_none(problems)
        self.assertGreater(count, 20)

    def test_python_json_yaml_and_shell_can_be_read(self):
        for document, block in self.every("blocks"):
            if block.language == "python":
                compile(block.text, document.name, "exec")
            elif block.language == "json":
                json.loads(block.text)
            elif block.language == "yaml":
                yaml.safe_load(block.text)
            elif block.language == "sh":
                run("bash", "-n", input=block.text)
            elif block.language != "text":
                self.assertTrue(block.before.endswith("```") and not block.language, f"{document.name}:{block.line}")
        for document in DOCUMENTS:
            fences = re.findall(r"^ *(?:```|~~~)", document.text, re.M)
            self.assertEqual(len(fences), 2 * len(document.blocks), f"{document.name}: a block that no test finds")

    def test_commands_are_marked_as_such(self):
        """Blocks of commands say `sh`, or test_commands.py would not run them."""
        command = re.compile(r"^(\$ |\./scripts/|cargo |curl |docker |aws |kubectl |target/|python3? |pip |git )", re.M)
        self.assert_none(
            f"{document.name}:{block.line}"
            for document, block in self.every("blocks")
            if block.language == "text" and command.search(block.text)
        )
