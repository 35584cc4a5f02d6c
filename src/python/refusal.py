"""What the client gets for an exception: its status if it chooses one, and its text.

Libraries have their own exceptions for that. They are recognized by their attributes, because the script's environment
may have any of them or none. Attributes belong to the script: reading them may fail, and they may hold anything.
"""

import json
import re

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
    code = _attribute(error, "code") if callable(_attribute(error, "get_response")) else None
    response = _attribute(_attribute(error, "response"), "status_code")
    for number in (status, _attribute(error, "status_code"), code, response):
        if _is_a(number, int) and not isinstance(number, bool):
            # A subclass may have a __index__ and comparisons of its own.
            number = int.__int__(number)
            if 400 <= number < 600:
                return number
    return None


def content_of(error):
    """What the body says about an exception that chooses its status: its text, or the whole body as JSON in bytes."""
    title, description, detail = (_attribute(error, name) for name in ("title", "description", "detail"))
    if _is_a(title, str):
        body = {"title": _clean(title)}
        if _is_a(description, str):
            body["description"] = _clean(description)
        return _json(body)
    for text in (description, detail):
        if _is_a(text, str):
            return _clean(text)
    if detail is not None:
        try:
            body = _json({"error": detail})
        except Exception:
            body = None
        if body is not None and len(body) <= MAX_CHARACTERS:
            return body
    return _clean(text_of(error))


def text_of(error):
    """The text of any exception."""
    try:
        return str(error)
    except Exception:
        return type(error).__name__


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
    return str.encode(text, errors="replace")[: 4 * MAX_CHARACTERS].decode(errors="ignore")[:MAX_CHARACTERS]


def _json(value):
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode(errors="replace")
