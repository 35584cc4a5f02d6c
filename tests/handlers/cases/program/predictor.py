"""Has all three functions: the single handler is the one that counts."""

import os


def handler(data, context):
    return "%s %s" % (__name__, os.path.basename(__file__)), "text/plain"


def input_handler(data, context):
    raise AssertionError("input_handler was called")


output_handler = input_handler
