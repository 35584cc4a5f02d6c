"""Runs where neither requests nor grpc can be imported."""

import json

for name in ("requests", "grpc"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise AssertionError(f"{name} can be imported")


def input_handler(data, context):
    return json.dumps({"channel": context.channel, "port": context.grpc_port})


def output_handler(response, context):
    response.raise_for_status()
    assert response.ok and response.encoding == "utf-8" and "content-type" in response.headers
    return json.dumps(response.json()), response.headers["Content-Type"]
