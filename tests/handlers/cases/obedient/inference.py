"""Does what a request says, and answers with the request."""

import ctypes  # noqa: F401  (for requests)
import os  # noqa: F401
import time


def compute(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def handler(data, context):
    text = data.read().decode()
    # With our globals, so that a request can use what an earlier one made.
    exec(text, globals())
    return text, "text/plain"
