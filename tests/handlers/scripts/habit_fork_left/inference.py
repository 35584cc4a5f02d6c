"""Forks, and the child leaves the call: with an exception, or with an answer of its own."""
import os
import time


def handler(data, context):
    text = data.read().decode()
    time.sleep(0.002)
    for how in ("raises", "returns"):
        child = os.fork()
        if child == 0:
            if how == "raises":
                raise RuntimeError("in the child")
            return "the child's answer", "text/plain"
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != 1:
            raise RuntimeError(f"a child that {how} ended with {status}")
    return text, "text/plain"
