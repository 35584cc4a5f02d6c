"""Every kind of trouble that a handler can raise, by name."""
import asyncio
import json
import sys


class ModelInputError(Exception):
    """Errors of one's own, with a message made late."""

    def __init__(self, field, value):
        self.field, self.value = field, value

    def __str__(self):
        return f"field {self.field!r} cannot be {self.value}"


class WithoutText(Exception):
    def __str__(self):
        raise RuntimeError("there is no text")


class WithWrongText(Exception):
    def __str__(self):
        return 42


class Unusual(BaseException):
    """Not even an Exception."""


def _value_error():
    raise ValueError("the input has 3 columns, not 4")


def _odd_text():
    raise ValueError('größe "模型" \\ back\tslash\n{"error": \'x\'} \U0001f600 \x00\x1f')


def _own():
    raise ModelInputError("x", -1)


def _key_error():
    return {"a": 1}["instances"]


def _attribute_error():
    return None.shape


def _json_error():
    return json.loads("{")


def _unicode_error():
    return b"\xff".decode("utf-8")


def _two_arguments():
    raise Exception("unsupported", 415)


def _no_text():
    raise RuntimeError


def _assertion():
    assert 1 + 1 == 3, "sums are wrong"


def _bare_assertion():
    assert 1 + 1 == 3


def _chained():
    try:
        _key_error()
    except KeyError as error:
        raise RuntimeError("the request has no rows") from error


def _while_handling():
    try:
        _value_error()
    except ValueError:
        raise TypeError("and the cure failed")


def _recursion(depth=0):
    return _recursion(depth + 1) + 1


def _deep_json():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    return json.dumps(nested)


def _str_fails():
    raise WithoutText


def _str_is_wrong():
    raise WithWrongText


def _surrogate():
    raise ValueError("lone \udc80 surrogate")


def _long():
    raise ValueError("long " * 100_000)


def _exit():
    sys.exit("cannot go on")


def _exit_code():
    sys.exit(3)


def _quit():
    raise SystemExit


def _interrupt():
    raise KeyboardInterrupt


def _cancelled():
    raise asyncio.CancelledError("given up")


def _generator_exit():
    raise GeneratorExit("closed")


def _stop_iteration():
    return next(iter(()))


def _unusual():
    raise Unusual("unusual indeed")


def _memory():
    raise MemoryError("no room for 99 rows")


def _os_error():
    return open("/nowhere/labels.json")


KINDS = {name[1:]: kind for name, kind in list(globals().items()) if name.startswith("_") and callable(kind)}
