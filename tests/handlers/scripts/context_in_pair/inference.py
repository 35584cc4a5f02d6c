"""Passes something on from input_handler's context to output_handler's: both describe the same request."""
import json

FIELDS = ["model_name", "model_version", "method", "rest_uri", "grpc_port", "custom_attributes",
          "request_content_type", "accept_header", "content_length", "timeout"]


def _facts(context):
    return {name: getattr(context, name) for name in FIELDS}


def input_handler(data, context):
    data.read()
    return json.dumps(_facts(context))


def output_handler(response, context):
    same = response.json() == _facts(context)
    return json.dumps({"same": same, "method": context.method, "version": context.model_version}), "application/json"
