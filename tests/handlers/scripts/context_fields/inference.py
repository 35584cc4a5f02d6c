"""Says what the context holds."""
import json


def handler(data, context):
    seen = {
        "model_name": context.model_name,
        "model_version": context.model_version,
        "method": context.method,
        "rest_uri": context.rest_uri,
        "grpc_port": context.grpc_port,
        "channel": type(context.channel).__module__.split(".")[0],
        "custom_attributes": context.custom_attributes,
        "request_content_type": context.request_content_type,
        "accept_header": context.accept_header,
        "content_length": context.content_length,
        "timeout": context.timeout,
    }
    return json.dumps(seen), "application/json"
