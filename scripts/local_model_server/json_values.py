"""One JSON value as one element of a tensor: which values TFS takes for which type, and its refusals."""

import base64
import binascii

import numpy as np
import tensorflow as tf

from local_model_server.dtypes import type_name
from local_model_server.json_text import encode
from local_model_server.json_writer import pretty
from local_model_server.status import ServingError, invalid_argument

_FLOAT_MAX = float(np.finfo(np.float32).max)
_WHOLE_LIMIT = {tf.float32: 2**24 - 1, tf.float64: 2**53 - 1}  # whole numbers beyond may lose digits
_INT32, _INT64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)
INT_RANGE = {  # 8 and 16 bits too are read as 32 bits; TFS cuts them afterwards
    tf.int8: _INT32,
    tf.int16: _INT32,
    tf.int32: _INT32,
    tf.int64: _INT64,
    tf.uint8: _INT32,
    tf.uint32: (0, 2**32 - 1),
    tf.uint64: (0, 2**64 - 1),
}
_JSON_TYPE = {
    type(None): "Null",
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
}


def element(value, dtype):
    """The Python value to put into an array of `dtype`."""
    value = in_64_bits(value)
    kind = type(value)
    if dtype == tf.string:
        if kind is str:
            return encode(value)
        if kind is dict:
            return decode_base64(value)
    elif kind is dict:
        pass
    elif dtype == tf.bool:
        if kind is bool:
            return value
    elif dtype in INT_RANGE:
        low, high = INT_RANGE[dtype]
        if kind is int and low <= value <= high:
            return value
    elif dtype in _WHOLE_LIMIT:
        if kind in (int, float):
            check_lossless(value, dtype)
            return value
    else:
        text = f"Conversion of JSON Value: {pretty(value)} to type: {type_name(dtype)}"
        raise ServingError("UNIMPLEMENTED", text)
    raise invalid_argument(
        f"JSON Value: {pretty(value)} Type: {json_type(value)} is not of expected type: {type_name(dtype)}"
    )


def all_plain_numbers(values, dtype):
    """Whether a list's values can be taken as they are: the quick way for large requests."""
    if not values or not set(map(type, values)) <= ({int, float} if dtype.is_floating else {int}):
        return False
    if dtype in INT_RANGE:
        low, high = INT_RANGE[dtype]
    elif dtype in _WHOLE_LIMIT:
        high = _WHOLE_LIMIT[dtype]
        low = -high
    else:
        return False
    return low <= min(values) and max(values) <= high  # not so with NaN: these go one by one


def in_64_bits(value):
    """The value, but whole numbers beyond 64 bits as floats: that is what RapidJSON makes of them."""
    if type(value) is not int or -(2**63) <= value < 2**64:
        return value
    try:
        return float(value)
    except OverflowError:
        raise invalid_argument("JSON Parse error: Number too big to be stored in double.") from None


def check_lossless(value, dtype):
    if type(value) is int:
        lossless = abs(value) <= _WHOLE_LIMIT[dtype]
    else:
        lossless = dtype == tf.float64 or not np.isfinite(value) or abs(value) <= _FLOAT_MAX
    if not lossless:
        raise invalid_argument(
            f"Cannot convert JSON value: {pretty(value)} to {type_name(dtype)} without loss of precision."
        )


def is_base64(value):
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(value):
    if not is_base64(value):
        raise invalid_argument(f"JSON Value: {pretty(value)} not formatted correctly for base64 data")
    text = "".join(value["b64"].split())  # white space is skipped
    plain = text.rstrip("=")
    padding = "=" * (-len(plain) % 4)
    try:
        if text in (plain, plain + padding):  # it may be missing, but not wrong
            return base64.b64decode(plain + padding, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise invalid_argument("Unable to base64 decode")


def json_type(value):
    return _JSON_TYPE.get(type(value)) or str(value)  # True and False are types of their own
