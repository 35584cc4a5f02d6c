"""Uses the context as what it is, a named tuple."""
import json


def input_handler(data, context):
    return data.read()


def output_handler(response, context):
    (model_name, model_version, method, rest_uri, grpc_port, channel, custom_attributes, request_content_type,
     accept_header, content_length, timeout) = context
    other = context._replace(method="classify", accept_header="text/plain")
    seen = {
        "name": type(context).__name__,
        "fields": list(context._fields),
        "is a tuple": isinstance(context, tuple),
        "length": len(context),
        "as dict": list(context._asdict()) == list(context._fields),
        "replaced": [other.method, other.accept_header, context.method, type(other) is type(context)],
        "unpacked": [model_name, method, rest_uri == context.rest_uri, timeout == context.timeout],
        "by index": [context[3] == rest_uri, context[-1] == timeout, context.index(accept_header) < 9],
        "made": type(context)._make(range(11)).timeout,
        "equal": context == tuple(context),
        "content length": content_length,
        "attributes": custom_attributes,
        "types": [type(grpc_port).__name__, type(content_length).__name__, type(request_content_type).__name__],
    }
    try:
        context.method = "predict"
    except AttributeError:
        seen["assigned"] = "AttributeError"
    return json.dumps(seen), "application/json"
