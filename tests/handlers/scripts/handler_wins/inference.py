"""Has all three: the single handler is the one that counts."""


def handler(data, context):
    return "handler", "text/plain"


def input_handler(data, context):
    raise AssertionError("input_handler was called")


def output_handler(response, context):
    raise AssertionError("output_handler was called")
