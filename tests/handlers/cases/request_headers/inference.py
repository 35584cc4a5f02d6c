"""Uses context.headers as a dict, and tries to change it."""

import copy
import json
import pickle


def refused(change, headers):
    try:
        change(headers)
    except TypeError:
        return True
    return False


CHANGES = {
    "set": lambda headers: headers.__setitem__("traceparent", "other"),
    "delete": lambda headers: headers.__delitem__("traceparent"),
    "update": lambda headers: headers.update(traceparent="other"),
    "merge": lambda headers: headers.__ior__({"traceparent": "other"}),
    "setdefault": lambda headers: headers.setdefault("new", "other"),
    "pop": lambda headers: headers.pop("traceparent"),
    "popitem": lambda headers: headers.popitem(),
    "clear": lambda headers: headers.clear(),
}


def input_handler(data, context):
    body = data.read()
    if body == b"spoil":
        dict.__setitem__(context.headers, "spoilt", "yes")
    assert body != b"look", dict(context.headers)
    return body


def output_handler(response, context):
    headers = context.headers
    plain = {"traceparent": headers["TraceParent"]}
    seen = {
        "found": [headers["TRACEPARENT"], headers.get("TraceParent"), "traceParent" in headers, 1 in headers],
        "absent": [headers.get("tracestate"), headers.get("x", "default"), "authorization" in headers],
        "equal": [headers == plain, headers == {"TraceParent": plain["traceparent"]}, headers != {}, headers == 1],
        "copies": [
            copy.copy(headers) == headers,
            copy.deepcopy(headers) == headers,
            pickle.loads(pickle.dumps(headers)) == headers,
            dict(headers) == plain,
            {**headers} == plain,
            json.loads(json.dumps(headers)) == plain,
            type(headers.copy()) is dict,
            hash(headers) == hash(copy.copy(headers)),
        ],
        "shown": repr(headers),
        "not refused": [name for name, change in CHANGES.items() if not refused(change, headers)],
        "unchanged": dict(headers),
        "hashable": isinstance(hash(context._replace(channel=None)), int),
        "sorted": sorted(headers),
        "length": [len(headers), bool(headers)],
    }
    return json.dumps(seen), "application/json"
