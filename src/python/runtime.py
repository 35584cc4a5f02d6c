"""Loads and calls a handler script, and defines the objects that the script sees: data, context and response.

This module is compiled into sagemaker-tfs-python, which calls `load`, `request`, `response`, `report` and `describe`.
It needs only the standard library. It uses `grpc`, `gevent` and `requests` if the script's environment has them.
"""

import codecs
import collections
import collections.abc
import contextvars
import datetime
import importlib.machinery
import importlib.util
import io
import json
import logging
import os
import re
import sys
import traceback
import urllib.parse

log = logging.getLogger("sagemaker_tfs")

_FIELDS = (
    "model_name, model_version, method, rest_uri, grpc_port, channel, custom_attributes, request_content_type, "
    "accept_header, content_length, timeout"
)


class Context(collections.namedtuple("Context", _FIELDS)):
    """The script's `context`. What `convert` needs is no field, because scripts unpack and compare fields."""

    call = None

    def _replace(self, **fields):
        other = super()._replace(**fields)
        other.call = self.call
        return other


class Call:
    """What `convert` needs to know about a request."""

    def __init__(self, conversion):
        self.conversion = conversion
        # The signature that the converted body names itself.
        self.signature_name = None


# The call of this thread or greenlet, for scripts that make a context of their own.
_call = contextvars.ContextVar("call", default=None)


def current_call(context):
    """Returns the `Call` of a context, or of the function that runs."""
    return getattr(context, "call", None) or _call.get() or Call(None)


_module = None
_handler = _input_handler = _output_handler = None
_channels = {}
_grpc = None
_make_convert = None


# Maximum length of a content type; real ones are far shorter.
MAX_CONTENT_TYPE = 8192


class UnusableScript(Exception):
    """The script cannot be used, for a reason that needs no traceback."""


def load(path, code, prefix, packages, level, greenlets, make_convert):
    """Imports the script. Returns whether it has a single `handler`, whether the worker uses gevent, and whether the
    script uses `convert`.

    `code` is the folder that holds the script, directly or in a subfolder. `greenlets` is the module `greenlets.py`, or
    None unless the worker class is gevent. `make_convert` makes the module `convert`.
    """
    global _module, _handler, _input_handler, _output_handler, _grpc, _make_convert
    _make_convert = make_convert
    path = os.fspath(path)
    if sys.prefix != os.fspath(prefix):
        raise UnusableScript(f"it would use the packages in {sys.prefix}, but python3 uses those in {prefix}")
    logging.basicConfig(level=level)
    if packages is not None:
        # First on the path, so that the script's own packages take precedence over installed ones.
        sys.path.insert(0, os.fspath(packages))
    code = os.fspath(code)
    # Before installed packages, as with gunicorn, because an archive may contain another version of a package.
    places = dict.fromkeys((code, os.path.dirname(path), os.path.join(code, "lib")))
    sys.path[:0] = [place for place in places if os.path.isdir(place)]
    sys.argv = [path]
    # Before the import of the script, because modules that it imports must be patched, too. The functions of the script
    # are not known yet, so the process is patched for a pair, too, as with gunicorn.
    has_gevent = greenlets is not None and greenlets.install()
    if has_gevent:
        _grpc = _import_grpc()
        if _grpc is not None:
            greenlets.install_grpc()
    # Existing scripts expect the module name `inference`, whatever the file's name, and no entry in sys.modules.
    loader = importlib.machinery.SourceFileLoader("inference", path)
    _module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("inference", path, loader=loader))
    loader.exec_module(_module)

    _handler = getattr(_module, "handler", None)
    _input_handler = getattr(_module, "input_handler", None)
    _output_handler = getattr(_module, "output_handler", None)
    if _handler is None:
        names = ("input_handler", "output_handler")
        missing = [name for name in names if getattr(_module, name, None) is None]
        if len(missing) == 2:
            raise UnusableScript("it has neither the function handler nor input_handler and output_handler")
        if missing:
            raise UnusableScript(f"the function {missing[0]} is missing")
    if _grpc is None:
        _grpc = _import_grpc()
    return _handler is not None, has_gevent, "convert" in globals()


def __getattr__(name):
    """Makes `convert` when a script imports it: the server then sends what it needs with each call."""
    if name != "convert" or _make_convert is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["convert"] = module = _make_convert()
    return module


def _import_grpc():
    try:
        import grpc
    except ImportError:
        return None
    except Exception:
        log.warning("grpc cannot be imported; context.channel is None", exc_info=True)
        return None
    return grpc


def _channel(port):
    """Returns the gRPC channel to a TensorFlow Serving instance. The first call for a port makes the channel."""
    if _grpc is None:
        return None
    channel = _channels.get(port)
    if channel is None:
        # No limit, as over REST, because tensors may exceed gRPC's default limit of 4 MB.
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        # When two threads make a channel at the same time, both get the same one.
        channel = _channels.setdefault(port, _grpc.insecure_channel(f"localhost:{port}", options=options))
    return channel


def request(
    body,
    model_name,
    model_version,
    method,
    rest_uri,
    grpc_port,
    custom_attributes,
    request_content_type,
    accept_header,
    content_length,
    timeout,
    conversion,
):
    """Runs `handler` or `input_handler`. Returns the context, and the body and content type of the result."""
    context = Context(
        model_name,
        model_version,
        method,
        rest_uri,
        grpc_port,
        _channel(grpc_port),
        custom_attributes,
        request_content_type,
        accept_header,
        content_length,
        timeout,
    )
    if conversion is not None:
        context.call = Call(conversion)
        _call.set(context.call)
    data = io.BytesIO(body)
    if _handler is not None:
        body, content_type = _for_client(_handler(data, context))
    else:
        body, content_type = _for_model_server(_input_handler(data, context))
    return context, body, content_type


def response(context, status, reason, headers, body):
    """Runs `output_handler`. Returns the body and content type for the client."""
    if context.call is not None:
        _call.set(context.call)
    return _for_client(_output_handler(Response(status, reason, headers, body, context.rest_uri), context))


def report(error, trace):
    """Writes the traceback to the log, without the frames of this module, unless `convert` blames the request.

    Returns the text for the client, and the HTTP status if the error chooses one.
    """
    convert = globals().get("convert")
    if convert is not None and isinstance(error, convert.Error):
        return str(error), error.status
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace))
    # The script may have replaced sys.stderr with an object that fails.
    for stream in (sys.stderr, sys.__stderr__):
        try:
            stream.write(text)
            break
        except Exception:
            continue
    try:
        return str(error), None
    except Exception:
        return type(error).__name__, None


def describe(error, trace):
    """Returns why the script cannot be loaded."""
    if isinstance(error, UnusableScript):
        return str(error)
    # The script's users need no frames of this module and of the import machinery.
    while trace is not None and _is_foreign(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def _is_foreign(filename):
    return filename == __file__ or filename.startswith("<frozen importlib")


def _for_client(result):
    body, content_type = result
    if content_type is None:
        content_type = "application/json"
    if not isinstance(content_type, str):
        raise TypeError(f"the content type must be str, not {type(content_type).__name__}")
    if len(content_type) > MAX_CONTENT_TYPE:
        raise ValueError(f"the content type has {len(content_type)} characters")
    if body is None:
        body = b""
    elif isinstance(body, (bytearray, memoryview)):
        body = bytes(body)
    elif not isinstance(body, (str, bytes)):
        raise TypeError(f"the body must be str or bytes, not {type(body).__name__}")
    return body, content_type


def _for_model_server(data):
    """Returns the body and content type that `requests.post(data=...)` would send, with JSON as the default type."""
    json_type = "application/json"
    if isinstance(data, (str, bytes)):
        return data, json_type
    if data is None:
        return b"", json_type
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data), json_type
    if hasattr(data, "read"):
        data = data.read()
        return (data, json_type) if isinstance(data, (str, bytes)) else (bytes(data), json_type)
    if isinstance(data, collections.abc.Mapping) or _is_pairs(data):
        return _form(data), "application/x-www-form-urlencoded"
    if hasattr(data, "__iter__"):
        parts = (part.encode() if isinstance(part, str) else part for part in data)
        return b"".join(parts), json_type
    raise TypeError(f"input_handler must return str, bytes, a file or an iterable of bytes, not {type(data).__name__}")


def _form(data):
    pairs = data.items() if isinstance(data, collections.abc.Mapping) else data
    fields = []
    for name, values in pairs:
        several = hasattr(values, "__iter__") and not isinstance(values, (str, bytes))
        fields += [(name, value) for value in (values if several else [values]) if value is not None]
    return urllib.parse.urlencode(fields)


def _is_pairs(data):
    return (
        isinstance(data, (list, tuple))
        and len(data) > 0
        and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in data)
    )


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


class HTTPError(IOError):
    """Raised by `raise_for_status` if the script does not use `requests`."""

    def __init__(self, message, response):
        super().__init__(message)
        self.response = response


class Response:
    """TensorFlow Serving's response, with the interface of `requests.Response`."""

    is_redirect = is_permanent_redirect = False
    next = request = None
    # The server measures time; the script gets none.
    elapsed = datetime.timedelta()

    def __init__(self, status_code, reason, headers, content, url):
        self.status_code = status_code
        self.reason = reason
        self.content = content
        self.url = url
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

    @property
    def raw(self):
        return io.BytesIO(self.content)

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
