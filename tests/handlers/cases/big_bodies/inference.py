"""Large bodies both ways, through a handler and the model."""

import hashlib


def input_handler(data, context):
    content = data.read()
    assert context.content_length in (None, len(content)), (context.content_length, len(content))
    return content


def output_handler(response, context):
    return "%d %s" % (len(response.content), hashlib.sha256(response.content).hexdigest()), "text/plain"
