"""The least a pair of handlers can do: everything passes as it is."""


def input_handler(data, context):
    return data.read()


def output_handler(response, context):
    return response.content, "application/json"
