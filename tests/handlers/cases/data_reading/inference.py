"""Reads the request's body in the way that the custom attributes say."""

import hashlib
import io  # noqa: F401  (for requests)
import json

import pandas  # noqa: F401


def in_pieces(data, size):
    digest, length = hashlib.sha256(), 0
    while piece := data.read(size):
        digest.update(piece)
        length += len(piece)
    return length, digest.hexdigest()


def handler(data, context):
    seen = eval(context.custom_attributes, globals(), {"data": data, "context": context})
    return json.dumps(seen, default=lambda value: value.decode("latin-1")), "application/json"
