"""JSON as the RapidJSON of TFS 2.19 reads it, and its values in error texts.

Python's decoder does the work; its complaints become RapidJSON's. Strings may hold any bytes: those that are not UTF-8
travel as surrogate escapes (see `encode`).
"""

import json
import math
import re

from local_model_server.errors import invalid_argument

INDENT = "    "
MAX_QUOTED_BYTES = 256  # of a value in an error text

_MESSAGES = {  # the beginning of Python's complaint, and RapidJSON's
    "Expecting property name": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':'": "Missing a colon after a name of object member.",
    "Unterminated string": "Missing a closing quotation mark in string.",
    "Invalid control character": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX": "Incorrect hex digit after \\u escape in string.",
}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_CLOSED = re.compile(r"\{[^][{}]*\}|\[[^][{}]*\]")


class _Repeated(dict):
    """An object that has a name twice."""


def _object(members):
    unique = dict(members)
    return unique if len(unique) == len(members) else _Repeated(reversed(members))  # the first of a name counts


def _float(text):
    value = float(text)
    if math.isinf(value):
        raise invalid_argument("JSON Parse error: Number too big to be stored in double.")
    return value


def _int(text):
    """The number; beyond 64 bits as a float, which is what RapidJSON makes of it."""
    if len(text) <= 20:
        value = int(text)
        if -(2**63) <= value < 2**64:
            return value
    return _float(text)


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_int)


def parse(body):
    """The JSON value at the start of `body`; what follows is ignored. Raises ServingError with TFS's text."""
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    whole = body.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    text = whole.lstrip(" \t\n\r")
    if text[:1] in ("", "\0", ",", ":", "]", "}"):
        raise invalid_argument(f"JSON Parse error: The document is empty. at offset: {len(body) - len(text)}")
    try:
        value, _ = _decoder.raw_decode(text)
    except json.JSONDecodeError as error:
        offset = len(whole) - len(text) + error.pos
        raise invalid_argument(f"JSON Parse error: {_complaint(error)} at offset: {offset}") from None
    try:
        encode(quote(value) if "\\u" in text else "")
    except UnicodeEncodeError:
        raise invalid_argument("JSON Parse error: The surrogate pair in string is invalid.") from None
    return value


def _complaint(error):
    if error.msg.startswith("Expecting ',' delimiter"):
        before, found = error.doc[: error.pos], error.doc[error.pos : error.pos + 1]
        if before[-1:].isdigit() and found == ".":
            return "Miss fraction part in number."
        if before[-1:].isdigit() and found in ("e", "E"):
            return "Miss exponent in number."
        before, closed = _STRING.sub("", before), 1
        while closed:
            before, closed = _CLOSED.subn("", before)
        if before.rfind("{") > before.rfind("["):
            return "Missing a comma or '}' after an object member."
        return "Missing a comma or ']' after an array element."
    return next((text for begin, text in _MESSAGES.items() if error.msg.startswith(begin)), "Invalid value.")


def encode(string):
    """The bytes of a string that `parse` returned."""
    return string.encode("utf-8", "surrogateescape")


def quote(string):
    return json.dumps(string, ensure_ascii=False)


def pretty(value):
    """A value as TFS quotes it in an error: arrays on one line, cut after MAX_QUOTED_BYTES and at a NaN or infinity."""
    text = ""
    for part in _parts(value, 1):
        if part in ("NaN", "Infinity", "-Infinity") or len(encode(text)) >= MAX_QUOTED_BYTES:
            break
        text += part
    return text


def _parts(value, depth):
    if isinstance(value, dict):
        yield "{"
        for index, (name, item) in enumerate(value.items()):
            yield f"{',' if index else ''}\n{INDENT * depth}{quote(name)}: "
            yield from _parts(item, depth + 1)
        yield f"\n{INDENT * (depth - 1)}}}" if value else "}"
    elif isinstance(value, list):
        yield "["
        for index, item in enumerate(value):
            yield ", " if index else ""
            yield from _parts(item, depth + 1)
        yield "]"
    else:
        yield json.dumps(value, ensure_ascii=False)
