"""Handlers that are no plain functions: a bound method, wrapped, and an object. Parameters have names of their own."""

import functools
import json


def two_positional(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        assert len(args) == 2 and not kwargs, (args, kwargs)
        return function(*args, **kwargs)

    return wrapper


class Service:
    def __init__(self, scale):
        self.scale = scale

    def preprocess(self, request, ctx=None, *more, **options):
        assert ctx is not None and not more and not options
        return json.dumps([self.scale * x for x in json.loads(request.read())])


class Output:
    def __call__(self, answer, _):
        return json.dumps({"values": answer.json(), "kind": type(self).__name__}), "application/json"


input_handler = two_positional(Service(scale=10).preprocess)
output_handler = Output()
