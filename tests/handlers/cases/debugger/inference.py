"""Stops in the debugger."""


def input_handler(data, context):
    words = data.read().decode().split()
    breakpoint()
    return " ".join(words)


def output_handler(response, context):
    return response.content, "text/plain"
