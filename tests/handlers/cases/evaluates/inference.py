"""Runs the Python that a request holds in the function that FUNCTION names, and returns its value there."""

import asyncio  # noqa: F401  (for requests)
import collections
import io  # noqa: F401
import itertools
import json  # noqa: F401
import os
import sys  # noqa: F401

print("the script is loaded")

Result = collections.namedtuple("Result", "body content_type")


class Text(str):
    """A str that is more than a str, as libraries return them."""


class Lies(str):
    """A str that seems to be short."""

    __len__ = lambda self: 0  # noqa: E731
    __str__ = lower = lambda self: "other"  # noqa: E731


class Chunks:
    """An iterable that is neither list nor iterator."""

    def __iter__(self):
        return iter([b"one,", b"two"])


class Reader:
    """A file-like object of the script's own."""

    def __init__(self, content):
        self.content = content

    def read(self, size=-1):
        size = len(self.content) if size is None or size < 0 else size
        piece, self.content = self.content[:size], self.content[size:]
        return piece


class Chooses(Exception):
    """An exception with these attributes."""

    def __init__(self, words="", /, **attributes):
        super().__init__(words)
        vars(self).update(attributes)


class Hostile(Exception):
    """An exception whose attributes all fail to be read, each in another way."""

    def __getattr__(self, name):
        raise {"status": KeyboardInterrupt, "title": SystemExit}.get(name, RuntimeError)(name)


class Endless(collections.UserDict):
    """A mapping with ever more keys."""

    def __iter__(self):
        return map(str, itertools.count())

    def __getitem__(self, name):
        return name


def at(stream, position):
    stream.seek(position)
    return stream


def fails_after(first):
    yield first
    raise LookupError("no second piece")


def compiled(text):
    try:
        return compile(text, "request", "eval")
    except SyntaxError:
        return compile(text, "request", "exec")


def evaluate(text):
    return eval(compiled(text), globals())


if os.environ["FUNCTION"] == "handler":

    def handler(data, context):
        return evaluate(data.read().decode())


def input_handler(data, context):
    text = data.read().decode()
    return evaluate(text) if os.environ["FUNCTION"] == "input_handler" else text


def output_handler(response, context):
    response.raise_for_status()
    if os.environ["FUNCTION"] == "output_handler":
        return evaluate(response.text)
    return response.content, "text/plain"
