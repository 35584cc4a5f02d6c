import sys

if "weights" not in globals():
    sys.exit("the weights are missing")


def handler(data, context):
    return "never", "text/plain"
