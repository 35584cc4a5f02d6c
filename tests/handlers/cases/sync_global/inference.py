"""Passes data from input_handler to output_handler through a global, which needs one request at a time."""
import json
import os

current = None


def input_handler(data, context):
    global current
    current = json.loads(data.read())
    return json.dumps(current["request"])


def output_handler(response, context):
    global current
    mine, current = current, None
    return json.dumps({"token": mine["token"], "pid": os.getpid()}), "application/json"
