"""Raises what the request's body names."""
from raising import KINDS

print("exceptions_in_handler is loaded")


def handler(data, context):
    return KINDS.get(data.read().decode(), lambda: "nothing raised")(), "text/plain"
