"""Forks where FORKS says, and the child leaves the call: with an exception, or with an answer of its own."""

import os
import time


def fork(*ways):
    time.sleep(0.002)
    for way in ways:
        child = os.fork()
        if child == 0:
            if way == "raises":
                raise RuntimeError("in the child")
            return "the child's answer", "text/plain"
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 1, f"a child that {way} ended with {status}"
    return None


if os.environ["FORKS"] == "at import":
    child = os.fork()
    if child:
        os.waitpid(child, 0)

if os.environ["FORKS"] == "in a pair":

    def input_handler(data, context):
        body = data.read()
        return fork("raises") or body

    def output_handler(response, context):
        return fork("raises") or (response.content, "text/plain")

else:

    def handler(data, context):
        body = data.read()
        ways = ["raises", "returns"] if os.environ["FORKS"] == "in handler" else []
        return fork(*ways) or (body, "text/plain")
