"""Reads the request's body in the way that the custom attributes ask for."""
import hashlib
import io
import json

import pandas


def _pieces(data, size):
    while True:
        piece = data.read(size)
        if not piece:
            return
        yield piece


def handler(data, context):
    way = context.custom_attributes
    if way == "read":
        seen = [data.read(), data.read(), data.read(5)]
    elif way == "read some":
        seen = [data.read(3), data.read(0), data.read(4), data.read(-1), data.read()]
    elif way == "readline":
        seen = [data.readline(), data.readline(), data.read(2), data.readline(), data.readline(), data.readline()]
    elif way == "readlines":
        seen = [*data.readlines(), len(data.readlines())]
    elif way == "iterate":
        seen = [line.strip() for line in data]
    elif way == "next":
        seen = [next(data), next(iter(data)), data.read()]
    elif way == "wrapped":
        seen = [line for line in io.TextIOWrapper(data, encoding="utf-8")]
    elif way == "json.load":
        seen = [json.load(data)]
    elif way == "pandas":
        seen = pandas.read_csv(data, header=None)[1].tolist()
    elif way == "untouched":
        seen = []
    elif way == "pieces":
        digest, length = hashlib.sha256(), 0
        for piece in _pieces(data, 65536):
            digest.update(piece)
            length += len(piece)
        seen = [length, digest.hexdigest(), context.content_length]
    else:
        raise ValueError(way)
    seen = [item.decode("latin-1") if isinstance(item, bytes) else item for item in seen]
    return json.dumps(seen), "application/json"
