"""Returns what a request evaluates to from input_handler, and compares with what requests would have sent."""

import array  # noqa: F401  (for requests)
import collections
import io  # noqa: F401

import requests
from urllib3.util.request import body_to_chunks

FORM = "application/x-www-form-urlencoded"


class Reader:
    """A file that is no iterable."""

    def __init__(self, content):
        self.file = io.BytesIO(content)

    def read(self, size=-1):
        return self.file.read(size)


class Fields(collections.UserDict):
    """A mapping that is no dict."""


def sent_by_requests(value):
    prepared = requests.Request("POST", "http://localhost/", data=value).prepare()
    pieces = body_to_chunks(prepared.body, "POST", 16384).chunks or ()
    pieces = [piece.encode() if isinstance(piece, str) else bytes(piece) for piece in pieces if piece]
    return b"".join(pieces), prepared.headers.get("Content-Type") == FORM


def input_handler(data, context):
    global expected
    text = data.read().decode()
    expected = sent_by_requests(eval(text, globals()))
    # Evaluated once more, because files and generators end.
    return eval(text, globals())


def output_handler(response, context):
    request = response.request
    sent = (response.content, request.headers["Content-Type"] == FORM)
    assert sent == expected, f"{sent} instead of {expected}"
    assert request.headers["Content-Length"] == str(len(response.content))
    # None: too long to be kept.
    body = getattr(request, "body", None)
    body = body.encode() if isinstance(body, str) else body
    assert body == (response.content if len(response.content) <= 256 << 10 else None)
    return "the same", "text/plain"
