"""The body that `input_handler` returns, encoded as `requests.post(data=...)` does it: `requests/models.py`, the
functions `prepare_body` and `_encode_params`, and `urllib3/util/request.py`, the function `body_to_chunks`.
"""

import collections.abc
import urllib.parse

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"
_ADVICE = 'return bytes or JSON, for example json.dumps({"instances": array.tolist()})'


def encode(data):
    """Returns the body, a str or bytes, and its content type. JSON is the default type, because TensorFlow Serving
    needs none, and `requests` sends none.

    Raises TypeError for what is no body, and what the script's own objects raise.
    """
    if isinstance(data, (str, bytes)):
        return data, JSON_TYPE
    if hasattr(data, "__array__"):
        # An array of numpy, or what becomes one. requests sends the memory of one that has a single element.
        return _raw(data), JSON_TYPE
    is_stream = hasattr(data, "__iter__") and not isinstance(data, (list, tuple, collections.abc.Mapping))
    if not is_stream and not data:
        return b"", JSON_TYPE
    if hasattr(data, "read"):
        content = data.read()
        return content if isinstance(content, str) else _raw(content or b""), JSON_TYPE
    if not hasattr(data, "__iter__") or _has_buffer(data):
        return _raw(data), JSON_TYPE
    if is_stream:
        return b"".join(_pieces(data)), JSON_TYPE
    return _form(data), FORM_TYPE


def _name(value):
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _has_buffer(value):
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True


def _raw(value, what=""):
    """The bytes of an object that has them in its memory, such as a bytearray."""
    if isinstance(value, bytes):
        return value
    if hasattr(value, "__array__") or not _has_buffer(value):
        allowed = "str, bytes, a file or an iterable of bytes"
        raise TypeError(f"input_handler must return {allowed}, not {what}{_name(value)}: {_ADVICE}")
    return memoryview(value).tobytes()


def _pieces(data):
    for piece in data:
        if isinstance(piece, str):
            yield piece.encode()
        elif hasattr(piece, "__array__") or piece:
            yield _raw(piece, "an iterable of ")


def _form(data):
    pairs = data.items() if isinstance(data, collections.abc.Mapping) else data
    try:
        pairs = [(name, values) for name, values in pairs]
    except (TypeError, ValueError):
        raise TypeError(f"input_handler returned a {_name(data)} that is no list of pairs: {_ADVICE}")
    fields = []
    for name, values in pairs:
        is_one = isinstance(values, (str, bytes)) or not hasattr(values, "__iter__")
        fields += [(name, value) for value in ([values] if is_one else values) if value is not None]
    return urllib.parse.urlencode(fields, doseq=True)
