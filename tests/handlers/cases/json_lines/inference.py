"""Batch transform: one record a line in, one prediction a line out."""
import json


def input_handler(data, context):
    lines = (line.strip() for line in data)
    return json.dumps({"instances": [json.loads(line)["features"] for line in lines if line]})


def output_handler(response, context):
    if response.status_code != 200:
        raise ValueError(response.text)
    lines = (json.dumps({"prediction": value}) for value in response.json()["instances"])
    return "\n".join(lines) + "\n", context.accept_header
