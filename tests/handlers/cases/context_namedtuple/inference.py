"""Uses the context as what it is, a named tuple."""

import json


def handler(data, context):
    names = context._fields
    (*_, rest_uri, _, _, _, _, accept_header, _, timeout, _) = context
    other = context._replace(method="classify", accept_header="text/plain")
    seen = {
        "name": type(context).__name__,
        "fields": list(names),
        "is a tuple": isinstance(context, tuple) and context == tuple(context),
        "as dict": context._asdict() == {name: getattr(context, name) for name in names},
        "replaced": [other.method, other.accept_header, context.method, type(other) is type(context)],
        "unpacked": [rest_uri == context.rest_uri, accept_header == context.accept_header, timeout == context.timeout],
        "by index": [context[3] == rest_uri, context[10] == timeout, context.index(rest_uri) == 3],
        "made": type(context)._make(range(12)).timeout,
        "types": {name: type(value).__name__ for name, value in context._asdict().items() if name != "channel"},
    }
    try:
        context.method = "predict"
    except AttributeError:
        seen["assigned"] = "AttributeError"
    return json.dumps(seen), "application/json"
