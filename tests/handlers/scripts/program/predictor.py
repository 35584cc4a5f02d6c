"""Named by SAGEMAKER_PROGRAM."""
import os


def handler(data, context):
    return "%s %s" % (__name__, os.path.basename(__file__)), "text/plain"
