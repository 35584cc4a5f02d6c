"""What the client gets for an exception: its status if it chooses one, its text and its headers.

Libraries have their own exceptions for that. They are recognized by their attributes, because the script's environment
may have any of them or none. Attributes belong to the script: reading them may raise, and they may hold anything.
"""

import json
import re

import sagemaker_tfs_headers as headers_of

# Far more than a client needs; SageMaker shows 2,048 characters of an error.
MAX_CHARACTERS = 8192

_STATUS_LINE = re.compile(r"([45][0-9][0-9])(?: |\Z)")


def status_of(error):
    """The status from 400 to 599 that an exception chooses, or None."""
    status = _attribute(error, "status")
    line = _STATUS_LINE.match(status) if _is_a(status, str) else None
    if line:
        return int(line[1])
    # werkzeug's `code`. Other exceptions have codes of other kinds, such as the exit code of SystemExit.
    code = _attribute(error, "code") if _is_of_werkzeug(error) else None
    response = _attribute(_attribute(error, "response"), "status_code")
    for number in (status, _attribute(error, "status_code"), code, response):
        if _is_a(number, int) and not isinstance(number, bool):
            # A subclass may have a __index__ and comparisons of its own.
            number = int.__int__(number)
            if 400 <= number < 600:
                return number
    return None


def content_of(error, status):
    """What the body says about an exception that chooses this status: its text, or the whole body as JSON in bytes."""
    title, description, detail = (_attribute(error, name) for name in ("title", "description", "detail"))
    if _is_a(title, str):
        body = _short_json(lambda: _dict_of(error))
        if body is None:
            body = {"title": _clean(title)}
            if _is_a(description, str):
                body["description"] = _clean(description)
            body = _json(body)
        return body
    # `text` is that of falcon.HTTPStatus.
    for text in (description, detail, _attribute(error, "text")):
        if _is_a(text, str):
            return _clean(text)
    if detail is not None:
        body = _short_json(lambda: {"error": detail})
        if body is not None:
            return body
    if _is_of_werkzeug(error) and _attribute(error, "code") is None:
        # werkzeug.exceptions.abort(response): the text names no status.
        return f"HTTP {status}"
    return text_of(error)


def with_headers(error, content):
    """Returns the content, the headers for the client, and why others of the exception are left out. With headers, the
    content is JSON.

    The headers are those of falcon and fastapi, whose exceptions have a title or a detail. Other exceptions hold the
    headers of an answer that another service gave.
    """
    counts = _is_a(_attribute(error, "title"), str) or _attribute(error, "detail") is not None
    headers = _attribute(error, "headers") if counts else None
    if headers is None:
        return content, [], []
    try:
        found, problems = headers_of.for_error(headers)
    except BaseException as problem:
        found, problems = [], [f"they cannot be read: {type(problem).__name__}"]
    if found and not isinstance(content, bytes):
        content = _json({"error": content})
    return content, found, problems


def text_of(error):
    """The start of the text of any exception, which UTF-8 can express."""
    try:
        return _clean(str(error))
    except BaseException:
        return _clean(type(error).__name__)


def _dict_of(error):
    body = error.to_dict()
    return body if isinstance(body, dict) else None


def _is_of_werkzeug(error):
    return callable(_attribute(error, "get_response"))


def _attribute(owner, name):
    try:
        return getattr(owner, name, None)
    except BaseException:
        return None


def _is_a(value, kind):
    # isinstance asks the value itself, too.
    return issubclass(type(value), kind)


def _clean(text):
    """The start of a text as a plain str that UTF-8 can express."""
    start = str.__getitem__(text, slice(MAX_CHARACTERS))
    return str.encode(start, errors="replace").decode()


def _short_json(make):
    """The JSON of what `make` returns, or None if there is none, it fails, or the JSON is too long."""
    try:
        value = make()
        body = None if value is None else _json(value)
    except BaseException:
        return None
    return body if body is not None and len(body) <= MAX_CHARACTERS else None


def _json(value):
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode(errors="replace")
