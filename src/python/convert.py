"""The server's own conversions for handler scripts: `from sagemaker_tfs import convert`.

A script can use one of them alone: convert a request and write its own `output_handler`, or the other way round.
"""

import json

import sagemaker_tfs


class Error(ValueError):
    """A request that cannot be converted, or an error of TensorFlow Serving. The client gets `status` and the text."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status

    def __reduce__(self):
        return Error, (self.status, str(self))


def request(data, context):
    """Returns the body for TensorFlow Serving, in bytes, that the server would send without a handler.

    `data` is the client's body: the argument of the handler, or bytes or text in the same format.
    """
    body = data.read() if hasattr(data, "read") else data
    if isinstance(body, str):
        body = body.encode()
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise TypeError(f"data must be a file, bytes or str, not {type(data).__name__}")
    call = sagemaker_tfs.current_call(context)
    body, call.signature_name = _request(bytes(body), context.request_content_type, call.conversion)
    return body


def response(response, context):
    """Returns the body and the content type that the server would send without a handler, by `context.accept_header`.

    Raises `Error` for a response with another status than 200.
    """
    if response.status_code != 200:
        raise Error(response.status_code, _error_text(response.content))
    call = sagemaker_tfs.current_call(context)
    return _response(bytes(response.content), context.accept_header, call.conversion, call.signature_name)


def _error_text(body):
    # TensorFlow Serving escapes some quotes in a way that JSON does not know.
    text = body.decode(errors="replace").replace("\\'", "'")
    try:
        return json.loads(text)["error"]
    except (ValueError, LookupError, TypeError):
        return text
