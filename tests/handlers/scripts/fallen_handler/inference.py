"""A single handler that brings its own process down, or takes long."""
import ctypes
import os
import time


def handler(data, context):
    what = data.read().decode()
    if what == "segfault":
        ctypes.string_at(0)
    if what == "exit":
        os._exit(7)
    if what == "wait":
        print("it waits")
        time.sleep(1000)
    if what == "loop":
        print("it loops")
        while True:
            pass
    if what.startswith("work"):
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass
    return what, "text/plain"
