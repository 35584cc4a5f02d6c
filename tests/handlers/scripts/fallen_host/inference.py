"""Brings its own process down."""
import ctypes
import json
import os
import signal

count = 0


def input_handler(data, context):
    global count
    count += 1
    what = data.read()
    if what == b"exit":
        os._exit(7)
    if what == b"segfault":
        ctypes.string_at(0)
    if what == b"kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while what == b"loop":
        pass
    return json.dumps({"count": count, "pid": os.getpid()})


def output_handler(response, context):
    return response.content, "application/json"
