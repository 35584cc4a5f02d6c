"""Reads the JSON value at the start of a request body, as RapidJSON does for TFS.

Python's own decoder (C, fast) does the work. What it refuses is read again by the plain parser below,
which knows the two things that differ: RapidJSON's error texts with their byte offsets, and its extra
spellings of infinity and NaN. Bytes after the first value are ignored.

Strings may hold any bytes: those that are not UTF-8 travel as surrogate escapes (see `encode`).
"""

import json
import math
import re

from local_model_server.status import invalid_argument

MAX_WHOLE_DIGITS = 300  # longer whole numbers are read as floats; none fits in 64 bits

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\n\r"
_NUMBER = re.compile(rb"-?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d*)?")
_CONSTANT = re.compile(rb"-?(?:NaN|Infinity|Inf)")
_LITERALS = {b"n": (b"null", None), b"t": (b"true", True), b"f": (b"false", False)}
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_ESCAPES = {
    ord('"'): '"',
    ord("\\"): "\\",
    ord("/"): "/",
    ord("b"): "\b",
    ord("f"): "\f",
    ord("n"): "\n",
    ord("r"): "\r",
    ord("t"): "\t",
}

_decoder = json.JSONDecoder()


def parse(body):
    """The first JSON value of `body` (bytes); raises ServingError with TFS's text."""
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        text = body.removeprefix(_BOM).decode("utf-8", "surrogateescape").lstrip(" \t\n\r")
        value, _ = _decoder.raw_decode(text)
        if "\\ud" in text or "\\uD" in text:  # Python lets half a surrogate pair pass; encoding finds it
            encode(json.dumps(value, ensure_ascii=False))
        return value
    except (ValueError, RecursionError):
        pass
    try:
        return _Parser(body).document()
    except RecursionError:
        raise invalid_argument("JSON Parse error: nested too deeply") from None


def encode(string):
    """The bytes of a string that `parse` returned."""
    return string.encode("utf-8", "surrogateescape")


class _Parser:
    """A recursive descent over bytes; its errors are RapidJSON's."""

    def __init__(self, data):
        self._data = data
        self._at = len(_BOM) if data.startswith(_BOM) else 0

    def document(self):
        if self._peek() == b"":
            self._fail("The document is empty.")
        return self._value()

    def _fail(self, text, at=None):
        raise invalid_argument(f"JSON Parse error: {text} at offset: {self._at if at is None else at}")

    def _peek(self):
        """The next byte that is not white space; empty at the end."""
        data, at = self._data, self._at
        while at < len(data) and data[at] in _SPACE:
            at += 1
        self._at = at
        return data[at : at + 1]

    def _take(self, byte):
        if self._peek() != byte:
            return False
        self._at += 1
        return True

    def _value(self):
        first = self._peek()
        if first == b"{":
            return self._object()
        if first == b"[":
            return self._array()
        if first == b'"':
            return self._string()
        if first in _LITERALS:
            return self._literal(*_LITERALS[first])
        return self._number()

    def _object(self):
        self._at += 1
        members = {}
        if self._take(b"}"):
            return members
        while True:
            if self._peek() != b'"':
                self._fail("Missing a name for object member.")
            name = self._string()
            if not self._take(b":"):
                self._fail("Missing a colon after a name of object member.")
            members[name] = self._value()
            if self._take(b"}"):
                return members
            if not self._take(b","):
                self._fail("Missing a comma or } after an object member.")

    def _array(self):
        self._at += 1
        elements = []
        if self._take(b"]"):
            return elements
        while True:
            elements.append(self._value())
            if self._take(b"]"):
                return elements
            if not self._take(b","):
                self._fail("Missing a comma or ] after an array element.")

    def _literal(self, word, value):
        for byte in word:
            if self._data[self._at : self._at + 1] != bytes((byte,)):
                self._fail("Invalid value.")
            self._at += 1
        return value

    def _number(self):
        constant = _CONSTANT.match(self._data, self._at)
        if constant:
            self._at = constant.end()
            return float(constant.group())
        match = _NUMBER.match(self._data, self._at)
        if not match:
            self._fail("Invalid value.")
        _, fraction, exponent = match.groups()
        if fraction == b".":
            self._fail("Miss fraction part in number.", match.end(2))
        if exponent and not exponent[-1:].isdigit():
            self._fail("Miss exponent in number.", match.end())
        self._at = match.end()
        if not fraction and not exponent and len(match.group()) <= MAX_WHOLE_DIGITS:
            return int(match.group())
        value = float(match.group())
        if math.isinf(value):
            self._fail("Number too big to be stored in double.")
        return value

    def _string(self):
        self._at += 1
        parts = []
        while True:
            plain = _PLAIN.match(self._data, self._at)
            parts.append(plain.group().decode("utf-8", "surrogateescape"))
            self._at = plain.end()
            byte = self._data[self._at : self._at + 1]
            if byte == b'"':
                self._at += 1
                return "".join(parts)
            if byte == b"\\":
                parts.append(self._escape())
            elif byte in (b"", b"\0"):
                self._fail("Missing a closing quotation mark in string.")
            else:
                self._fail("Invalid encoding in string.")

    def _escape(self):
        start = self._at
        kind = self._data[start + 1 : start + 2]
        self._at += 2
        if kind == b"u":
            unit = self._hex(start)
            if not 0xD800 <= unit <= 0xDFFF:
                return chr(unit)
            if unit > 0xDBFF or self._data[self._at : self._at + 2] != b"\\u":
                self._fail("The surrogate pair in string is invalid.", start)
            self._at += 2
            low = self._hex(start)
            if not 0xDC00 <= low <= 0xDFFF:
                self._fail("The surrogate pair in string is invalid.", start)
            return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))
        if not kind or kind[0] not in _ESCAPES:
            self._fail("Invalid escape character in string.", start)
        return _ESCAPES[kind[0]]

    def _hex(self, start):
        digits = self._data[self._at : self._at + 4]
        if not re.fullmatch(rb"[0-9a-fA-F]{4}", digits):
            self._fail("Incorrect hex digit after \\u escape in string.", start)
        self._at += 4
        return int(digits, 16)
