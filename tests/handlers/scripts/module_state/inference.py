"""Keeps things between requests: globals, a cache, and settings worked out at import."""
import functools
import json
import os
import threading

print("module_state is loaded")

TABLE = {word: number for number, word in enumerate("zero one two three".split())}
os.environ.setdefault("MODULE_STATE_SEEN", "0")
count = 0
calls = []
lock = threading.Lock()


@functools.lru_cache(maxsize=None)
def number_of(word):
    calls.append(word)
    return TABLE[word]


def input_handler(data, context):
    global count
    with lock:
        count += 1
    words = data.read().decode().split()
    return json.dumps([number_of(word) for word in words])


def output_handler(response, context):
    os.environ["MODULE_STATE_SEEN"] = str(count)
    numbers = response.json()
    return json.dumps({"count": count, "numbers": numbers, "computed": len(calls)}), "application/json"
