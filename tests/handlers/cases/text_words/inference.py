"""Text in, sequences of word numbers for the model; vocabulary and labels are files beside the script."""

from __future__ import annotations

import json
import re
from pathlib import Path

CODE = Path(__file__).parent
LENGTH = 6

with open(CODE / "vocabulary" / "words.txt", encoding="utf-8") as lines:
    VOCABULARY: dict[str, int] = {line.strip(): number for number, line in enumerate(lines, start=2)}
labels = json.loads((CODE / "labels.json").read_text(encoding="utf-8"))


def tokenize(text: str) -> list[int]:
    numbers = [VOCABULARY.get(word, 1) for word in re.findall(r"\w+", text.lower())]
    return (numbers + LENGTH * [0])[:LENGTH]


def input_handler(data, context):
    text = data.read().decode("utf-8")
    return json.dumps({"instances": [tokenize(line) for line in text.splitlines()]}, separators=(",", ":"))


def output_handler(response, context):
    # The fake model server answers with the request.
    rows = response.json()["instances"]
    lines = [f"{labels[str(sum(row) % 2)]}\t{' '.join(map(str, row))}\n" for row in rows]
    return "".join(lines), "text/tab-separated-values; charset=utf-8"
