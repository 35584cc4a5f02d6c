"""A single handler that brings its own process down, or takes long."""
import ctypes
import os
import time


def _compute(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


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
    if what.startswith("hold "):
        print("it holds")
        while not os.path.exists(what[5:]):
            pass
    if what.startswith("note "):
        print("noted: " + what[:20])
    if what.startswith("queue"):
        time.sleep(0.5)
        _compute(0.3)
    if what.startswith("turns"):
        for _ in range(6):
            _compute(0.1)
            time.sleep(0.001)
    if what.startswith("half"):
        _compute(0.05)
        time.sleep(0.05)
    if what.startswith("work"):
        _compute(0.5)
    if what == "work long":
        print("it works")
        _compute(3.5)
    if what == "doze":
        print("it dozes")
        time.sleep(4)
        print("it is awake")
    return what, "text/plain"
