"""What a handler may return, and what it must not."""
import collections

Result = collections.namedtuple("Result", "body content_type")


class Text(str):
    """A str that is more than a str, as libraries return them."""


def _by_and_by():
    yield '{"by": "and by"}'
    yield "application/json"


def _stops():
    yield "only the body"


def _fails():
    yield "body"
    raise LookupError("no type for this body")


GOOD = {
    "tuple": lambda: ("text", "text/plain"),
    "list": lambda: ["text", "text/plain"],
    "generator": _by_and_by,
    "map": lambda: map(str, ("text", "text/plain")),
    "namedtuple": lambda: Result("text", "text/plain"),
    "iterator": lambda: iter(["text", "text/plain"]),
    "dict of two keys": lambda: {"body": 1, "type": 2},
    "string of two": lambda: "ab",
    "non-ascii": lambda: ("größe 模型 \U0001f600", "text/plain; charset=utf-8"),
    "bytes": lambda: (bytes(range(256)), "application/octet-stream"),
    "empty str": lambda: ("", "text/plain"),
    "empty bytes": lambda: (b"", "text/plain"),
    "subclass": lambda: (Text("more"), Text("text/html")),
    "large": lambda: ("0123456789" * 500_000, "text/plain"),
    "odd type": lambda: ("x", "application/vnd.our-own+json; version=2"),
}
BAD = {
    "nothing": lambda: None,
    "three values": lambda: ("body", "text/plain", 200),
    "one value": lambda: ("body",),
    "only the body": lambda: '{"predictions": [1.0]}',
    "only bytes": lambda: b'{"predictions": [1.0]}',
    "dict": lambda: {"predictions": [1.0]},
    "number": lambda: 3.5,
    "true": lambda: True,
    "empty": lambda: (),
    "short generator": _stops,
    "failing generator": _fails,
}
# Here Python has nothing to say of its own.
UNSENDABLE = {
    "int body": lambda: (42, "text/plain"),
    "dict body": lambda: ({"a": 1}, "application/json"),
    "list body": lambda: ([b"a"], "application/json"),
    "int type": lambda: ("body", 42),
    "surrogate": lambda: ("\ud800", "text/plain"),
    "line break in type": lambda: ("body", "text/plain\r\nX-Injected: yes"),
}
ALL = {**GOOD, **BAD, **UNSENDABLE}
