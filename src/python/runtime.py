"""Loads and calls a handler script, and defines two of the objects that the script sees: data and context.

This module is compiled into sagemaker-tfs-python, which calls `load`, `request`, `response`, `report` and `describe`.
It needs only the standard library. It uses `grpc` and `gevent` if the script's environment has them.
"""

import collections
import contextvars
import importlib.machinery
import importlib.util
import io
import logging
import os
import sys
import traceback

from sagemaker_tfs_hints import hint
from sagemaker_tfs_request_body import encode as _for_model_server
from sagemaker_tfs_response import Request, Response
from sagemaker_tfs_standard_library import provide_submodules

import sagemaker_tfs_awaiting as awaiting
import sagemaker_tfs_headers as headers_of
import sagemaker_tfs_loop_thread as loop_thread
import sagemaker_tfs_refusal as refusal

log = logging.getLogger("sagemaker_tfs")

_FIELDS = (
    "model_name, model_version, method, rest_uri, grpc_port, channel, custom_attributes, request_content_type, "
    "accept_header, content_length, timeout, headers"
)


class Context(collections.namedtuple("Context", _FIELDS)):
    """The script's `context`. What `convert` and `response` need is no field, because scripts unpack and compare
    fields."""

    call = None
    # The `Request` of `response`.
    sent = None

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
# The folder `code`.
_code = ""
_handler = _input_handler = _output_handler = None
_channels = {}
_grpc = None
_make_convert = None


# Maximum length of a content type; real ones are far shorter.
MAX_CONTENT_TYPE = 8192
# Maximum length of a refusal's text, and of a file's name, in the log; the client gets more of the text.
MAX_NOTE = 300
# Maximum length of a traceback in the log. An exception's text may hold a whole request.
MAX_TRACEBACK = 64 << 10
# Frames of a traceback that are looked at. Python's recursion limit is 1000, but a script may raise it.
MAX_FRAMES = 10_000


class UnusableScript(Exception):
    """The script cannot be used, for a reason that needs no traceback."""


def load(path, code, prefix, packages, level, greenlets, make_convert):
    """Imports the script. Returns whether it has a single `handler`, whether the worker uses gevent, and whether the
    script uses `convert`.

    `code` is the folder that holds the script, directly or in a subfolder. `greenlets` is the module `greenlets.py`, or
    None unless the worker class is gevent. `make_convert` makes the module `convert`.
    """
    global _module, _code, _handler, _input_handler, _output_handler, _grpc, _make_convert
    _make_convert = make_convert
    path = os.fspath(path)
    if sys.prefix != os.fspath(prefix):
        raise UnusableScript(f"it would use the packages in {sys.prefix}, but python3 uses those in {prefix}")
    logging.basicConfig(level=level)
    if packages is not None:
        # First on the path, so that the script's own packages take precedence over installed ones.
        sys.path.insert(0, os.fspath(packages))
    _code = code = os.fspath(code)
    # Before installed packages, as with gunicorn, because an archive may contain another version of a package.
    places = dict.fromkeys((code, os.path.dirname(path), os.path.join(code, "lib")))
    places = [place for place in places if os.path.isdir(place)]
    sys.path[:0] = places
    if packages is not None:
        places.append(os.fspath(packages))
    # For processes that the script starts.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*places, os.environ.get("PYTHONPATH")]))
    sys.argv = [path]
    # Before the import of the script, because modules that it imports must be patched, too. The functions of the script
    # are not known yet, so the process is patched for a pair, too, as with gunicorn.
    has_gevent = greenlets is not None and greenlets.install()
    if has_gevent:
        _grpc = _import_grpc()
        if _grpc is not None:
            greenlets.install_grpc()
    provide_submodules()
    _module = _import_script(path)
    if has_gevent:
        greenlets.check_event_loops()

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


def _import_script(path):
    """Runs the script as the module `inference`, whatever the file's name, because existing scripts expect that name.

    The module is registered first: dataclasses, `typing` and `pickle` look up their module by its name, and modules
    that import `inference` get the script and no package of that name.
    """
    loader = importlib.machinery.SourceFileLoader("inference", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("inference", path, loader=loader))
    sys.modules["inference"] = module
    try:
        loader.exec_module(module)
    except BaseException:
        sys.modules.pop("inference", None)
        raise
    return module


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
    headers=None,
):
    """Runs `handler` or `input_handler`. Returns the context, and the body, content type and headers of the result."""
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
        # Never shared by requests: `dict.__setitem__` can change it.
        headers_of.RequestHeaders(headers or ()),
    )
    if conversion is not None:
        context.call = Call(conversion)
        _call.set(context.call)
    data = io.BytesIO(body)
    if _handler is not None:
        result = _for_client(awaiting.result_of(_handler(data, context)))
    else:
        body, content_type = _for_model_server(awaiting.result_of(_input_handler(data, context)))
        context.sent = Request(rest_uri, content_type, body)
        result = body, content_type, None
    return context, *result


def response(context, status, reason, headers, body):
    """Runs `output_handler`. Returns the body, content type and headers for the client."""
    if context.call is not None:
        _call.set(context.call)
    answer = Response(status, reason, headers, body, context.sent)
    return _for_client(awaiting.result_of(_output_handler(answer, context)))


def share_event_loop():
    """Makes all calls await in one event loop, because they run on several threads."""
    loop_thread.install()


def report(error, trace):
    """Writes the traceback to the log, without the frames of this module, unless the request is to blame.

    Returns what the client gets, in text or as JSON in bytes, the HTTP status if the error chooses one, and headers.
    """
    convert = globals().get("convert")
    is_of_convert = convert is not None and issubclass(type(error), convert.Error)
    status = refusal.status_of(error)
    # First, because what follows may fail.
    if status is None or status >= 500 and not is_of_convert:
        _write_traceback(error, trace)
    if status is None:
        return refusal.text_of(error), None, []
    content = refusal.content_of(error, status)
    if status < 500 and not is_of_convert:
        _log(log.info, "the handler refused a request with status %d: %s%s", status, _note(content), _place(trace))
    content, headers, problems = refusal.with_headers(error, content)
    for problem in problems:
        _log(log.warning, "headers of an exception with status %d are left out: %s", status, ascii(problem[:MAX_NOTE]))
    return content, status, headers


def _log(function, *message):
    try:
        function(*message)
    except BaseException:
        # The script may have changed how messages are logged, and its change may fail.
        pass


def _note(content):
    text = content.decode() if isinstance(content, bytes) else content
    return ascii(text[:MAX_NOTE])


def _place(trace):
    """The script's deepest line in a traceback: of a file in the folder `code`, but not of a package in its `lib`."""
    place = ""
    for _ in range(MAX_FRAMES):
        if trace is None:
            break
        name = trace.tb_frame.f_code.co_filename
        if name.startswith(_code + os.sep) and not name.startswith(os.path.join(_code, "lib", "")):
            place = f" ({ascii(name[len(_code) + 1 :][:MAX_NOTE])[1:-1]}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place


def _write_traceback(error, trace):
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:
        # Reading an attribute of the exception fails.
        text = "".join([*traceback.format_tb(trace), f"{type(error).__name__}\n"])
    if len(text) > MAX_TRACEBACK:
        half = MAX_TRACEBACK // 2
        text = f"{text[:half]}\n[{len(text) - MAX_TRACEBACK} characters are left out]\n{text[-half:]}"
    text += hint(error)
    # The script may have replaced sys.stderr with an object that fails.
    for stream in (sys.stderr, sys.__stderr__):
        try:
            stream.write(text)
            break
        except BaseException:
            continue


def describe(error, trace):
    """Returns why the script cannot be loaded."""
    if isinstance(error, UnusableScript):
        return str(error)
    # The script's users need no frames of this module and of the import machinery.
    while trace is not None and _is_foreign(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return ("".join(traceback.format_exception(type(error), error, trace)) + hint(error)).rstrip()


def _is_foreign(filename):
    return filename == __file__ or filename.startswith("<frozen importlib")


def _for_client(result):
    """Returns the body, content type and headers of a function's result. Headers are None if there are none."""
    headers = None
    if isinstance(result, (tuple, list)) and len(result) == 3:
        *result, headers = result
        headers = headers_of.for_answer(headers) or None
    body, content_type = result
    if content_type is None:
        content_type = "application/json"
    if not isinstance(content_type, str):
        raise TypeError(f"the content type must be str, not {type(content_type).__name__}")
    # A subclass may have a length of its own.
    content_type = str.__str__(content_type)
    if len(content_type) > MAX_CONTENT_TYPE:
        raise ValueError(f"the content type has {len(content_type)} characters")
    if body is None:
        body = b""
    elif isinstance(body, (bytearray, memoryview)):
        body = bytes(body)
    elif not isinstance(body, (str, bytes)):
        raise TypeError(f"the body must be str or bytes, not {type(body).__name__}")
    return body, content_type, headers
