"""A handler of one model in the demo: CSV with four measures a row in, the names of the flowers out."""

import csv
import io
import json


def input_handler(data, context):
    rows = csv.reader(io.TextIOWrapper(data, "utf-8", newline=""))
    return json.dumps({"instances": [[float(field) for field in row] for row in rows]})


def output_handler(response, context):
    if response.status_code != 200:
        raise ValueError(response.text)
    rows = json.loads(response.content)["predictions"]
    return json.dumps({"model": context.model_name, "flowers": [row["label"] for row in rows]}), "application/json"
