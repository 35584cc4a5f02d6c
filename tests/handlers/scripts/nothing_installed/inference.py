"""Runs where neither requests nor grpc can be imported: the folder `without` is on PYTHONPATH."""
import json

try:
    import requests  # noqa: F401
    found = True
except ImportError:
    found = False


def input_handler(data, context):
    return json.dumps({"found": found, "channel": repr(context.channel), "port": context.grpc_port.isdigit()})


def output_handler(response, context):
    if response.ok and response.encoding == "utf-8" and "content-type" in response.headers:
        return json.dumps(response.json()), response.headers["Content-Type"]
    response.raise_for_status()
