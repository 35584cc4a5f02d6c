"""A pair that forks in both functions, and the children leave the calls."""
import os


def fork():
    child = os.fork()
    if child == 0:
        raise RuntimeError("in the child")
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 1:
        raise RuntimeError(f"the child ended with {status}")


def input_handler(data, context):
    body = data.read()
    fork()
    return body


def output_handler(response, context):
    fork()
    return response.content, "text/plain"
