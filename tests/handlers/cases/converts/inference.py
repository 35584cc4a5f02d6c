"""The server's conversions on both sides; the script only counts rows and drops what it must not show."""

import json

from sagemaker_tfs import convert


def input_handler(data, context):
    return convert.request(data, context)


def output_handler(response, context):
    body, content_type = convert.response(response, context)
    if "count" in (context.custom_attributes or ""):
        return json.dumps({"rows": body.count(b"\n"), "type": content_type}), "application/json"
    return body, content_type
