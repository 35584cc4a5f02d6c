"""Flowers by their names, one a line: a model's own handler, with a module of its own."""
import csv
import io
import json

from words import SEPARATOR


def input_handler(data, context):
    rows = csv.reader(io.TextIOWrapper(data, "utf-8", newline=""))
    return json.dumps({"instances": [[float(field) for field in row] for row in rows]})


def output_handler(response, context):
    if response.status_code != 200:
        raise ValueError(response.text)
    rows = json.loads(response.content)["predictions"]
    return SEPARATOR.join([context.model_name] + [row["label"] for row in rows]), "text/plain"
