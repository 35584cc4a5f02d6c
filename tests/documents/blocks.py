"""What the documents hold: their fenced blocks, headings and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.harness.client import run
from tests.harness.constants import ROOT

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def anchor_of(heading: str) -> str:
    """What `#...` in a link names, as GitHub derives it from a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int
    #: The paragraph above it.
    before: str


class Document:
    def __init__(self, path: Path):
        self.path = path
        self.name = str(path.relative_to(ROOT))
        self.text = path.read_text()

    @cached_property
    def blocks(self) -> list[Block]:
        found = []
        for match in FENCED.finditer(self.text):
            above = self.text[: match.start()]
            found.append(Block(match[1], match[2], above.count("\n") + 1, above.rstrip().rpartition("\n\n")[2]))
        return found

    @cached_property
    def prose(self) -> str:
        """The text without its blocks."""
        return FENCED.sub("", self.text)

    @cached_property
    def anchors(self) -> set[str]:
        return set(map(anchor_of, re.findall(r"^#+ (.+)$", self.prose, re.M)))

    @cached_property
    def links(self) -> list[str]:
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    @cached_property
    def code(self) -> list[str]:
        """Code in the prose."""
        return re.findall(r"`([^`\n]+)`", self.prose)

    def section(self, anchor: str) -> list[Block]:
        """The blocks below a heading, up to the next one."""
        parts = re.split(r"^#+ (.+)$", self.text, flags=re.M)
        for heading, text in zip(parts[1::2], parts[2::2]):
            if anchor_of(heading) == anchor:
                return [block for block in self.blocks if block.text in text]
        raise AssertionError(f"{self.name} has no section {anchor}")


def documents() -> list[Document]:
    """All of the project's, as git knows them."""
    listed = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "*.md")
    paths = [ROOT / name for name in listed.splitlines()]
    return [Document(path) for path in paths if path.exists()]
