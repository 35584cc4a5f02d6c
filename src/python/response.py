"""TensorFlow Serving's response as a handler script sees it: the interface of `requests.Response`.

It needs only the standard library. It uses `requests` if the script has imported it.
"""

import codecs
import collections.abc
import datetime
import functools
import io
import json
import re
import sys


class Headers(collections.abc.MutableMapping):
    """Headers by name. The case of names does not matter."""

    def __init__(self, pairs=()):
        self._pairs = {}
        for name, value in pairs:
            known = self._pairs.get(name.lower())
            self[name] = value if known is None else f"{known[1]}, {value}"

    def __getitem__(self, name):
        return self._pairs[name.lower()][1]

    def __setitem__(self, name, value):
        self._pairs[name.lower()] = (name, value)

    def __delitem__(self, name):
        del self._pairs[name.lower()]

    def __iter__(self):
        return (name for name, _ in self._pairs.values())

    def __len__(self):
        return len(self._pairs)

    def __eq__(self, other):
        if not isinstance(other, collections.abc.Mapping):
            return NotImplemented
        other = other if isinstance(other, Headers) else Headers(other.items())
        return {k: v for k, (_, v) in self._pairs.items()} == {k: v for k, (_, v) in other._pairs.items()}

    def __repr__(self):
        return repr(dict(self.items()))

    def copy(self):
        return Headers(self._pairs.values())


class Request:
    """What the server sent to TensorFlow Serving, with the interface of `requests.PreparedRequest`.

    It lives while TensorFlow Serving works, and a worker may have hundreds of them, so it keeps no large body.
    """

    method = "POST"

    def __init__(self, url, content_type, body):
        self.url = url
        self._content_type = content_type
        self._body = body if len(body) <= MAX_KEPT_BODY else None
        self._length = _length(body) if self._body is None else None

    @property
    def body(self):
        if self._body is None:
            raise AttributeError(f"request.body is kept up to a length of {MAX_KEPT_BODY}, not for {self._length} bytes")
        return self._body

    @functools.cached_property
    def headers(self):
        length = _length(self._body) if self._length is None else self._length
        return Headers([("Content-Type", self._content_type), ("Content-Length", str(length))])

    def __repr__(self):
        return f"<PreparedRequest [{self.method}]>"


# The longest body that `Request` keeps, in bytes or characters. A worker may hold 512 requests.
MAX_KEPT_BODY = 256 << 10


def _length(body):
    return len(body) if isinstance(body, bytes) or body.isascii() else len(body.encode())


class Raw(io.BytesIO):
    """The response's body as a file, with the interface of `urllib3.HTTPResponse` that does not need its connection."""

    def __init__(self, response):
        super().__init__(response.content)
        self.status, self.reason, self.headers = response.status_code, response.reason, response.headers

    def read(self, amt=-1, decode_content=None):
        # TensorFlow Serving's body has no encoding by now.
        return super().read(amt)


class HTTPError(IOError):
    """Raised by `raise_for_status` if the script does not use `requests`."""

    def __init__(self, message, response):
        super().__init__(message)
        self.response = response


class Response:
    """TensorFlow Serving's response, with the interface of `requests.Response`."""

    is_redirect = is_permanent_redirect = False
    next = None
    # The server measures time; the script gets none.
    elapsed = datetime.timedelta()

    def __init__(self, status_code, reason, headers, content, request):
        self.status_code = status_code
        self.reason = reason
        self.content = content
        self.request = request
        self.url = request.url
        self.headers = Headers((name.title(), value) for name, value in headers)
        self.history, self.cookies, self.links = [], {}, {}
        self.encoding = _encoding(self.headers.get("Content-Type", ""))

    @property
    def ok(self):
        return not 400 <= self.status_code < 600

    __bool__ = ok.fget

    @property
    def apparent_encoding(self):
        return "utf-8"

    @property
    def text(self):
        try:
            return str(self.content, self.encoding or self.apparent_encoding, errors="replace")
        except LookupError:
            return str(self.content, errors="replace")

    @functools.cached_property
    def raw(self):
        return Raw(self)

    def json(self, **options):
        try:
            # Without an encoding, json detects it.
            return json.loads(self.text if self.encoding else self.content, **options)
        except ValueError as error:
            requests = sys.modules.get("requests")
            if requests is None or not isinstance(error, json.JSONDecodeError):
                raise
            raise requests.exceptions.JSONDecodeError(error.msg, error.doc, error.pos) from None

    def raise_for_status(self):
        if self.ok:
            return
        kind = "Client" if self.status_code < 500 else "Server"
        text = f"{self.status_code} {kind} Error: {self.reason} for url: {self.url}"
        requests = sys.modules.get("requests")
        # A script that catches the error of requests has imported requests.
        error = HTTPError if requests is None else requests.exceptions.HTTPError
        raise error(text, response=self)

    def iter_content(self, chunk_size=1, decode_unicode=False):
        step = chunk_size or max(len(self.content), 1)
        pieces = (self.content[start : start + step] for start in range(0, len(self.content), step))
        if decode_unicode and self.encoding:
            return codecs.iterdecode(pieces, self.encoding, errors="replace")
        return pieces

    def iter_lines(self, chunk_size=512, decode_unicode=False, delimiter=None):
        text = self.text if decode_unicode and self.encoding else self.content
        return iter(text.split(delimiter) if delimiter else text.splitlines())

    def __iter__(self):
        return self.iter_content(128)

    def __repr__(self):
        return f"<Response [{self.status_code}]>"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def close(self):
        pass


def _encoding(content_type):
    charset = re.search(r"charset\s*=\s*[\"']?([^\s;\"']+)", content_type, re.IGNORECASE)
    if charset:
        return charset.group(1)
    if "text" in content_type:
        return "ISO-8859-1"
    return "utf-8" if "application/json" in content_type else None
