"""Raises what the request's body names: in input_handler, or in output_handler after `output:`."""
from raising import KINDS

print("exceptions is loaded")


def input_handler(data, context):
    where, _, kind = data.read().decode().rpartition(":")
    if where == "output":
        return kind
    return KINDS.get(kind, lambda: kind)()


def output_handler(response, context):
    return KINDS.get(response.text, lambda: "nothing raised")(), "text/plain"
