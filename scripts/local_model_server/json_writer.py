"""Pretty-printed JSON, byte for byte as TFS prints it with RapidJSON's PrettyWriter.

Indentation is four spaces a level, except inside arrays that TFS asks for on a single line. Floats
are the special part: six significant digits if these give the same value back, else all of them
(9 for float32, 17 for float64), always with a point or an exponent; NaN and infinities stand bare.
"""

import math

import numpy as np

INDENT = "    "

_ESCAPES = {i: f"\\u{i:04X}" for i in range(0x20)}
_ESCAPES.update(
    {
        ord(c): e
        for c, e in (
            ("\b", "\\b"),
            ("\f", "\\f"),
            ("\n", "\\n"),
            ("\r", "\\r"),
            ("\t", "\\t"),
            ('"', '\\"'),
            ("\\", "\\\\"),
        )
    }
)


def quote(string):
    return f'"{string.translate(_ESCAPES)}"'


def error_body(message):
    """The body of an error, in the layout of TFS 2.x.

    The apostrophes are those of TFS 1.x, which wrote them as \\' (and so made these bodies invalid
    JSON). Clients of old have learned to undo that, and servers in front of TFS undo it for them:
    keeping it here is what lets tests see that they do.
    """
    text = quote(message).replace("'", "\\'")
    return f'{{\n{INDENT}"error": {text}\n}}'


def pretty(value, depth=0):
    """A value as `json_text.parse` returns it, for error texts."""
    inner = "\n" + INDENT * (depth + 1)
    if isinstance(value, dict):
        members = [f"{quote(name)}: {pretty(item, depth + 1)}" for name, item in value.items()]
        return _wrap("{", members, "}", depth, inner)
    if isinstance(value, list):
        return _wrap("[", [pretty(item, depth + 1) for item in value], "]", depth, inner)
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, float):
        in_range = abs(value) <= np.finfo(np.float32).max
        return decimals([value], np.float32 if in_range else np.float64)[0]
    return "null" if value is None else str(value).lower()  # True, False and whole numbers


def decimals(values, dtype):
    """The texts of Python floats that came from an array of `dtype` (float32 or float64)."""
    digits = "%.9g" if dtype == np.float32 else "%.17g"
    array = np.array(values, dtype)
    texts = ["%g" % value for value in values]
    with np.errstate(over="ignore"):
        inexact = np.array(list(map(float, texts)), dtype) != array
    for i in np.flatnonzero(inexact):
        texts[i] = digits % values[i]
    texts = [text if "." in text or "e" in text else text + ".0" for text in texts]
    for i in np.flatnonzero(~np.isfinite(array)):
        texts[i] = _non_finite(values[i])
    return texts


def _non_finite(value):
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def nest(texts, shape, depth, single_line):
    """Wraps the texts of a tensor's values, in row-major order, into arrays of that shape.

    `depth` is how many arrays and objects are open around the result.
    """
    for axis in reversed(range(len(shape))):
        size = shape[axis]
        groups = math.prod(shape[:axis])
        chunks = (texts[i * size : (i + 1) * size] for i in range(groups))
        if single_line:
            texts = [f"[{', '.join(chunk)}]" for chunk in chunks]
        else:
            inner = "\n" + INDENT * (depth + axis + 1)
            texts = [_wrap("[", chunk, "]", depth + axis, inner) for chunk in chunks]
    return texts[0]


def _wrap(opening, items, closing, depth, inner):
    if not items:
        return opening + closing
    return f"{opening}{inner}{(',' + inner).join(items)}\n{INDENT * depth}{closing}"
