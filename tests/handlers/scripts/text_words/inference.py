"""Text in, sequences of word numbers for the model; vocabulary and labels lie beside the script."""
from __future__ import annotations

import json
import re
from pathlib import Path

CODE = Path(__file__).parent
MAX_LENGTH = 6
WORD = re.compile(r"\w+", re.UNICODE)

with open(CODE / "vocabulary" / "words.txt", encoding="utf-8") as lines:
    VOCABULARY: dict[str, int] = {line.strip(): number for number, line in enumerate(lines, start=2)}
labels = json.loads((CODE / "labels.json").read_text(encoding="utf-8"))


def tokenize(text: str) -> list[int]:
    numbers = [VOCABULARY.get(word, 1) for word in WORD.findall(text.lower())][:MAX_LENGTH]
    return numbers + [0] * (MAX_LENGTH - len(numbers))


def input_handler(data, context):
    if context.request_content_type.split(";")[0] != "text/plain":
        raise ValueError("text/plain is wanted")
    text = data.read().decode("utf-8")
    return json.dumps({"instances": [tokenize(line) for line in text.splitlines()]}, separators=(",", ":"))


def output_handler(response, context):
    # The stand-in for the model answers with the request.
    rows = response.json()["instances"]
    lines = [f"{labels[str(sum(row) % 2)]}\t{' '.join(map(str, row))}\n" for row in rows]
    return "".join(lines), "text/tab-separated-values; charset=utf-8"
