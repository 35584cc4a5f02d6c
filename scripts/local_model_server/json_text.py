"""Reads the JSON value at the start of a request body, as the RapidJSON of TFS 2.19 does: iteratively.

Python's own decoder (C, fast) does the work. What it refuses, and what it might read differently, goes
through the plain parser below: RapidJSON's error texts, its extra spellings of infinity and NaN, any depth
of nesting. Bytes after the first value are ignored.

Strings may hold any bytes: those that are not UTF-8 travel as surrogate escapes (see `encode`).
"""

import json
import math
import re

from local_model_server.status import invalid_argument

MAX_WHOLE_DIGITS = 300  # longer whole numbers are read as floats; none fits in 64 bits

_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(rb"[ \t\n\r]*")
# Numbers that may not fit into a double, and surrogates: Python lets infinity and half a pair pass.
_DELICATE = re.compile(rb"[eE]\+?\d{3}|\d{%d}|\\u[dD][89a-fA-F]" % MAX_WHOLE_DIGITS)
_NUMBER = re.compile(rb"-?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d*)?")
_CONSTANT = re.compile(rb"-?(?:NaN|Infinity|Inf)")
_LITERALS = {b"n": (b"null", None), b"t": (b"true", True), b"f": (b"false", False)}
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX = re.compile(rb"[0-9a-fA-F]{4}")
_ESCAPES = {b'"': '"', b"\\": "\\", b"/": "/", b"b": "\b", b"f": "\f", b"n": "\n", b"r": "\r", b"t": "\t"}
_MISSING = {
    b"]": "Missing a comma or ']' after an array element.",
    b"}": "Missing a comma or '}' after an object member.",
}


class _Repeated(dict):
    """An object with a name twice: the first one is found, all are counted and listed."""

    def __init__(self, members):
        super().__init__(reversed(members))
        self._members = members

    def items(self):
        return self._members

    def __len__(self):
        return len(self._members)


def _object(members):
    unique = dict(members)
    return unique if len(unique) == len(members) else _Repeated(members)


_decoder = json.JSONDecoder(object_pairs_hook=_object)


def parse(body):
    """The first JSON value of `body` (bytes); raises ServingError with TFS's text."""
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    if not _DELICATE.search(body):
        try:
            text = body.removeprefix(_BOM).decode("utf-8", "surrogateescape").lstrip(" \t\n\r")
            return _decoder.raw_decode(text)[0]
        except (ValueError, RecursionError):
            pass
    return _Parser(body).document()


def encode(string):
    """The bytes of a string that `parse` returned."""
    return string.encode("utf-8", "surrogateescape")


class _Parser:
    """Works on bytes, without recursion; its errors are RapidJSON's."""

    def __init__(self, data):
        self._data = data
        self._at = len(_BOM) if data.startswith(_BOM) else 0

    def document(self):
        if self._peek() in (b"", b"\0", b",", b":", b"]", b"}"):
            self._fail("The document is empty.")
        around = []  # (values, end, names) of what is open around the next value; arrays have no names
        while True:
            kind = self._peek()
            if kind in (b"[", b"{"):
                self._at += 1
                end, names = (b"]", None) if kind == b"[" else (b"}", [])
                if not self._take(end):
                    if names is not None:
                        names.append(self._name())
                    around.append(([], end, names))
                    continue
                value = [] if names is None else {}
            else:
                value = self._scalar(kind)
            while around:
                values, end, names = around[-1]
                values.append(value)
                if not self._take(end):
                    break
                around.pop()
                value = values if names is None else _object(list(zip(names, values)))
            else:
                return value
            if not self._take(b","):
                self._fail(_MISSING[end])
            if names is not None:
                names.append(self._name())

    def _fail(self, text, at=None):
        raise invalid_argument(f"JSON Parse error: {text} at offset: {self._at if at is None else at}")

    def _peek(self):
        """The next byte that is not white space; empty at the end."""
        self._at = _SPACE.match(self._data, self._at).end()
        return self._data[self._at : self._at + 1]

    def _take(self, byte):
        if self._peek() != byte:
            return False
        self._at += 1
        return True

    def _name(self):
        if self._peek() != b'"':
            self._fail("Missing a name for object member.")
        name = self._string()
        if not self._take(b":"):
            self._fail("Missing a colon after a name of object member.")
        return name

    def _scalar(self, first):
        if first == b'"':
            return self._string()
        return self._literal(*_LITERALS[first]) if first in _LITERALS else self._number()

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
            self._fail("Invalid value.", self._at + self._data.startswith(b"-", self._at))
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
        if kind != b"u":
            if kind not in _ESCAPES:
                self._fail("Invalid escape character in string.", start)
            return _ESCAPES[kind]
        unit = self._hex(start)
        if not 0xD800 <= unit <= 0xDFFF:
            return chr(unit)
        if unit <= 0xDBFF and self._data[self._at : self._at + 2] == b"\\u":
            self._at += 2
            low = self._hex(start)
            if 0xDC00 <= low <= 0xDFFF:
                return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))
        self._fail("The surrogate pair in string is invalid.", start)

    def _hex(self, start):
        digits = _HEX.match(self._data, self._at)
        if not digits:
            self._fail("Incorrect hex digit after \\u escape in string.", start)
        self._at += 4
        return int(digits.group(), 16)
