"""Pretty-printed JSON, byte for byte as TFS prints it with RapidJSON's PrettyWriter.

Indentation is four spaces a level, except inside arrays that TFS asks for on a single line. Floats
are the special part: six significant digits if these give the same value back, else all of them
(9 for float32, 17 for float64), always with a point or an exponent; NaN and infinities stand bare.
"""

import math

import numpy as np

INDENT = "    "
MAX_QUOTED_BYTES = 256  # of a value in an error text

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
    return f'{{\n{INDENT}"error": {quote(message)}\n}}'


class _Stop(Exception):
    pass


def pretty(value):
    """A value as `json_text.parse` returns it, for error texts.

    As TFS prints it there: arrays on one line; an end after what passes MAX_QUOTED_BYTES, and at a NaN or infinity.
    """
    parts = []
    try:
        _quote_value(value, 1, "", parts)
    except _Stop:
        pass
    return "".join(parts)


def _quote_value(value, depth, prefix, parts):
    def put(text):
        parts.append(text)
        if sum(len(part.encode("utf-8", "surrogateescape")) for part in parts) >= MAX_QUOTED_BYTES:
            raise _Stop

    if isinstance(value, dict):
        put(prefix + "{")
        members = value.items()
        for index, (name, item) in enumerate(members):
            put(f"{',' if index else ''}\n{INDENT * depth}{quote(name)}")
            _quote_value(item, depth + 1, ": ", parts)
        put(f"\n{INDENT * (depth - 1)}}}" if members else "}")
    elif isinstance(value, list):
        put(prefix + "[")
        for index, item in enumerate(value):
            _quote_value(item, depth + 1, ", " if index else "", parts)
        put("]")
    elif isinstance(value, str):
        put(prefix + quote(value))
    elif isinstance(value, float):
        if not math.isfinite(value):
            parts.append(prefix)
            raise _Stop
        put(prefix + _rapid_double(value))
    else:
        put(prefix + ("null" if value is None else str(value).lower()))  # True, False and whole numbers


def _rapid_double(value):
    """A float as RapidJSON's own writer spells it."""
    sign = "-" if math.copysign(1, value) < 0 else ""
    if value == 0:
        return sign + "0.0"
    digits, exponent = _grisu2(abs(value))
    point = len(digits) + exponent  # where it stands among the digits
    if 0 <= exponent and point <= 21:
        return f"{sign}{digits}{'0' * exponent}.0"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[0]}{'.' * (len(digits) > 1)}{digits[1:]}e{point - 1}"


def _grisu2(value):
    """(digits, decimal exponent) by Grisu2 (Loitsch 2010) as RapidJSON has it: not always the nearest."""
    fraction, exponent = math.frexp(value)
    fraction, exponent = int(fraction * 2**53), exponent - 64
    lower = (4 * fraction - 1) << 9 if fraction == 2**52 else (2 * fraction - 1) << 10
    # A power of ten brings the value near 2**64; RapidJSON has a table of their top 64 bits, rounded.
    power = 8 * (math.ceil((-61 - exponent) * 0.30102999566398114 + 347) // 8 + 1) - 348
    exact = 10**power << 64 if power >= 0 else (1 << 1300) // 10**-power
    shift = exact.bit_length() - 64
    scale = (exact >> shift) + (exact >> (shift - 1) & 1)
    low, middle, high = ((n * scale + 2**63) >> 64 for n in (lower, fraction << 11, (2 * fraction + 1) << 10))
    high, delta, distance = high - 1, high - low - 2, high - 1 - middle
    bits = -(exponent + shift - (64 if power >= 0 else 1300) + 64)
    digits, rest, kappa = "", high, len(str(high >> bits))
    while True:
        kappa -= 1
        if kappa < 0:
            rest, delta = rest * 10, delta * 10
        unit = 10 ** max(kappa, 0) << bits
        digits += str(rest // unit)
        rest %= unit
        if rest <= delta if kappa >= 0 else rest < delta:
            break
    distance = 0 if kappa <= -9 else distance * 10 ** max(-kappa, 0)  # its table of powers ends there
    last = int(digits[-1])
    while (
        rest < distance
        and delta - rest >= unit
        and (rest + unit < distance or distance - rest > rest + unit - distance)
    ):
        last, rest = last - 1, rest + unit
    return digits[:-1] + str(last), kappa - power


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
