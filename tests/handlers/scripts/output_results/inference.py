"""The request's body names what output_handler returns."""
from results import ALL


def input_handler(data, context):
    return data.read()


def output_handler(response, context):
    return ALL[response.text]()
