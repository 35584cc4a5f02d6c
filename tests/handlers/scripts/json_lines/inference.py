"""Batch transform: one record a line in, one prediction a line out."""
import json


def input_handler(data, context):
    if context.request_content_type not in ("application/jsonlines", "application/x-jsonlines"):
        raise ValueError("unsupported: %s" % context.request_content_type)
    instances = []
    for line in data:
        line = line.strip()
        if line:
            instances.append(json.loads(line)["features"])
    return json.dumps({"instances": instances})


def output_handler(response, context):
    if response.status_code != 200:
        raise ValueError(response.text)
    lines = (json.dumps({"prediction": value}) for value in response.json()["instances"])
    return "\n".join(lines) + "\n", context.accept_header
