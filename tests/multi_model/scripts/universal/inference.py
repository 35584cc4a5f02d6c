"""The handler of all models that have none of their own: passes requests on, and tells what it was given."""
import json

from words import NAME


def input_handler(data, context):
    return data.read()


def output_handler(response, context):
    answer = {
        "script": NAME,
        "model": context.model_name,
        "version": context.model_version,
        "rest_port": context.rest_uri.partition("/v1/")[0].rpartition(":")[2],
        "grpc_port": context.grpc_port,
        "has_channel": context.channel is not None,
        "answer": response.json(),
    }
    return json.dumps(answer), "application/json"
