"""The server's own conversions for handler scripts: `from sagemaker_tfs import convert`.

A script can use one of them alone: convert a request and write its own `output_handler`, or the other way round.
"""

import json


class Error(ValueError):
    """A request that cannot be converted, or an error of TensorFlow Serving. The client gets `status` and the text."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def request(data, context):
    """Returns the body for TensorFlow Serving, in bytes, that the server would send without a handler.

    `data` is the client's body: the argument of the handler, or bytes or text in the same format.
    """
    body = data.read() if hasattr(data, "read") else data
    if isinstance(body, str):
        body = body.encode()
    return _request(bytes(body), context.request_content_type, getattr(context, "conversion", None))


def response(response, context):
    """Returns the body and the content type that the server would send without a handler, by `context.accept_header`.

    Raises `Error` for a response with another status than 200.
    """
    if response.status_code != 200:
        raise Error(response.status_code, _error_text(response.content))
    return _response(bytes(response.content), context.accept_header, getattr(context, "conversion", None))


def _error_text(body):
    text = body.decode(errors="replace")
    try:
        return json.loads(text)["error"]
    except (ValueError, LookupError, TypeError):
        return text
