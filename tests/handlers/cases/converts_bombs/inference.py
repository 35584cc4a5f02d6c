"""Conversions in a worker have the memory limit of the server."""

from sagemaker_tfs import convert


def input_handler(data, context):
    return convert.request(data, context._replace(custom_attributes=None))


def output_handler(response, context):
    if "pickle" in (context.custom_attributes or ""):
        import pickle

        error = pickle.loads(pickle.dumps(convert.Error(404, "found")))
        raise error
    return convert.response(response, context)
