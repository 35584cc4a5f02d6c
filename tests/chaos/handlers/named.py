"""The handlers of multi-model mode: each answer names the model whose script and module made it."""

import helper


def input_handler(data, context):
    return data.read()


def output_handler(response, context):
    return f"{helper.NAME} {context.model_name} {response.text}", "text/plain"
