"""Keeps things between requests: globals, a cache, and a file that is loaded with the first request and not before."""

import functools
import json
import logging
import os
import threading

logger = logging.getLogger(__name__)


class Weights:
    values = None
    lock = threading.Lock()

    @classmethod
    def get(cls):
        with cls.lock:
            if cls.values is None:
                with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "weights.json")) as file:
                    cls.values = json.load(file)
                logger.info("weights are loaded: %d", len(cls.values))
        return cls.values


logger.info("weights at import: %s", Weights.values)
count = 0
looked_up = []


@functools.lru_cache(maxsize=None)
def weight_of(word):
    looked_up.append(word)
    return Weights.get()[word]


def input_handler(data, context):
    global count
    count += 1
    return json.dumps([weight_of(word) for word in data.read().decode().split()])


def output_handler(response, context):
    return json.dumps({"count": count, "sum": sum(response.json()), "looked up": len(looked_up)}), "application/json"
