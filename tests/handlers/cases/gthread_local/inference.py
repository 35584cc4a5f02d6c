"""Keeps a request's data with its thread. Four requests meet in each function: all four threads are at work."""

import json
import threading

local = threading.local()
before = threading.Barrier(4, timeout=60)
after = threading.Barrier(4, timeout=60)


def input_handler(data, context):
    local.token = data.read().decode()
    local.thread = threading.get_ident()
    before.wait()
    return local.token


def output_handler(response, context):
    after.wait()
    same = local.token == response.text and local.thread == threading.get_ident()
    return json.dumps({"token": local.token, "same": same, "thread": local.thread}), "application/json"
