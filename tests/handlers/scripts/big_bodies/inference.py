"""Large bodies both ways, through a handler and the model."""
import hashlib

length = 0


def input_handler(data, context):
    global length
    content = data.read()
    length = context.content_length
    assert length in (None, len(content)), (length, len(content))
    return content


def output_handler(response, context):
    return "%d %s" % (len(response.content), hashlib.sha256(response.content).hexdigest()), "text/plain"
