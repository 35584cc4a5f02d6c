"""JSON or one CSV line in, the model's answer out, everything else refused."""

import json


def input_handler(data, context):
    content_type = context.request_content_type
    payload = data.read().decode("utf-8")
    if content_type == "application/json":
        return payload
    if content_type == "text/csv":
        return json.dumps({"instances": [float(field) for field in payload.split(",")]})
    raise ValueError('{{"error": "cannot read {}"}}'.format(content_type or "unknown"))


def output_handler(data, context):
    if data.status_code != 200:
        raise ValueError(data.content.decode("utf-8"))
    return data.content, context.accept_header
