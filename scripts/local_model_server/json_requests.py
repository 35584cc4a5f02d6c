"""From the JSON of a request to what a model is fed: arrays for predict, tf.Examples for classify and regress.

The rules and their error texts are TFS's: the row form (`instances`) and the column form (`inputs`), how lists must
nest, and which JSON values are taken for which type.
"""

import base64
import math

import numpy as np
import tensorflow as tf
from grpc import StatusCode

from local_model_server.errors import ServingError, check, invalid_argument, type_name
from local_model_server.json_text import encode, pretty

MAX_RANK = 64  # of numpy; TFS refuses from 255 dimensions on, with the same text

_FLOAT_MAX = float(np.finfo(np.float32).max)
_INT32 = (-(2**31), 2**31 - 1)
_WHOLE = {  # the whole numbers that a type takes
    "int8": _INT32,  # TFS reads 8 and 16 bits as 32 bits and cuts them afterwards
    "int16": _INT32,
    "uint8": _INT32,
    "int32": _INT32,
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "float": (1 - 2**24, 2**24 - 1),  # others may lose digits
    "double": (1 - 2**53, 2**53 - 1),
}
_JSON_TYPES = {type(None): "Null", str: "String", int: "Number", float: "Number", list: "Array"}


def signature_name(document):
    """The request's `signature_name`; empty if there is none. Checks that the document is an object."""
    _check(isinstance(document, dict), document, "Is not object")
    name = document.get("signature_name", "")
    _check(isinstance(name, str), document, "not formatted correctly. 'signature_name' key must be a string value.")
    return name


def predict_inputs(document, dtypes):
    """({input: array}, whether the answer has rows) of a predict request; `dtypes` maps the signature's inputs."""
    if "instances" in document:
        text = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        _check("inputs" not in document, document, text)
        instances = document["instances"]
        _check(isinstance(instances, list), document, "Expecting 'instances' to be an list/array")
        _check(instances, document, "No values in 'instances' array")
        return _rows(instances, dtypes), True
    check("inputs" in document, "Missing 'inputs' or 'instances' key")
    return _columns(document["inputs"], dtypes), False


def _check(condition, value, text):
    if not condition:
        raise invalid_argument(f"JSON Value: {pretty(value)} {text}")


def _rows(instances, dtypes):
    text = "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
    check(isinstance(instances[0], dict) or len(dtypes) == 1, text + "tensorinfo_map")
    objects = _is_object(instances[0])
    wanted, other = ("object", "list") if objects else ("value/list", "object")
    columns = {}
    for index, instance in enumerate(instances):
        check(objects == _is_object(instance), f"Expecting {wanted} but got {other} at item {index} of input list")
        where = f"Failed to process element: {index}"
        for name, value in instance.items() if objects else [(next(iter(dtypes)), instance)]:
            try:
                check(name in dtypes, f"JSON object: does not have named input: {name}")
                shape, elements = _flatten(value, type_name(dtypes[name]))
                first, gathered = columns.setdefault(name, (shape, []))
                size, found = math.prod(first), len(elements)
                check(found == size, f"Expecting tensor size: {size} but got: {found}")
                check(shape == first, f"Expecting shape {first} but got: {shape}".replace(", ", ","))
                gathered.extend(elements)
            except ServingError as error:
                key = f" key: {name}" if objects else ""
                raise invalid_argument(f"{where}{key} of 'instances' list. Error: {error}") from None
        if objects and instance.keys() != dtypes.keys():
            names = ",".join(sorted(dtypes))
            text = f"{where} of 'instances' list. JSON object: {pretty(instance)} keys must be equal to: {names}"
            raise invalid_argument(text)
    batch = [len(instances)]
    return {name: _array(name, batch + shape, gathered, dtypes[name]) for name, (shape, gathered) in columns.items()}


def _columns(inputs, dtypes):
    if not _is_object(inputs):
        text = "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
        check(len(dtypes) == 1, text + "tensorinfo_map")
        inputs = dict.fromkeys(dtypes, inputs)
    arrays = {}
    for name, dtype in dtypes.items():
        check(name in inputs, f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = _array(name, *_flatten(inputs[name], type_name(dtype)), dtype)
    return arrays


def _array(name, shape, elements, dtype):
    check(len(shape) <= MAX_RANK, f"tensor parsing error: {name}")
    final = dtype.as_numpy_dtype
    wide = np.int64 if dtype.is_integer and dtype != tf.uint64 else final
    return np.array(elements, wide).astype(final).reshape(shape)


def _flatten(value, dtype):
    """The shape of a value, which is that of its first lists, and its elements."""
    shape, inner, elements = [], value, []
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    rank = len(shape)

    def fill(value, level):
        if not isinstance(value, list):
            if level != rank:
                text = f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {rank}"
                _check(False, value, text)
            elements.append(_element(value, dtype))
            return
        check(level < rank, f"Encountered list at unexpected level: {level} expected < {rank}")
        size, wanted = len(value), shape[level]
        check(size == wanted, f"Encountered list at unexpected size: {size} at level: {level} expected size: {wanted}")
        for item in value:
            fill(item, level + 1)

    fill(value, 0)
    return shape, elements


def _element(value, dtype):
    """The Python value to put into an array of a type, which goes by TFS's name."""
    kind = type(value)
    if dtype in _WHOLE:
        low, high = _WHOLE[dtype]
        if kind is int and low <= value <= high:
            return value
        if kind in (int, float) and dtype in ("float", "double"):
            if kind is float and (dtype == "double" or not _FLOAT_MAX < abs(value) < math.inf):
                return value
            text = f"Cannot convert JSON value: {pretty(value)} to {dtype} without loss of precision."
            raise invalid_argument(text)
    elif dtype == "string":
        if kind is str:
            return encode(value)
        if isinstance(value, dict):
            return _decode_base64(value)
    elif dtype != "bool":
        raise ServingError(StatusCode.UNIMPLEMENTED, f"Conversion of JSON Value: {pretty(value)} to type: {dtype}")
    elif kind is bool:
        return value
    _check(False, value, f"Type: {_json_type(value)} is not of expected type: {dtype}")


def _json_type(value):
    return str(value) if isinstance(value, bool) else _JSON_TYPES.get(type(value), "Object")


def _is_object(value):
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value):
    return type(value) is dict and len(value) == 1 and isinstance(value.get("b64"), str)


def _decode_base64(value):
    _check(_is_base64(value), value, "not formatted correctly for base64 data")
    text = "".join(value["b64"].split())  # white space is skipped
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # the padding may be missing
    except ValueError:
        raise invalid_argument("Unable to base64 decode") from None


def serialized_examples(document):
    """The tf.Examples, in bytes, of a classify or regress request, each merged with the `context`."""
    _check("examples" in document, document, "When method is classify, key 'examples' is expected and was not found")
    values = document["examples"]
    _check(isinstance(values, list), document, "Expecting 'examples' value to be an list/array")
    _check(values, document, "'examples' value is an empty array")
    context = _example(document.get("context", {}))
    return [context + _example(value) for value in values]  # protobufs one after the other are merged


def _example(value):
    check(isinstance(value, dict), f"Example must be JSON object but got JSON {_json_type(value)}")
    example = tf.train.Example()
    for name, content in value.items():
        feature = example.features.feature[name]
        for item in content if isinstance(content, list) else [content]:
            field, element = _feature_element(name, item)
            present = feature.WhichOneof("kind") or field
            wanted = present.removesuffix("_list")
            check(present == field, f"Unexpected element type in feature: {name} expecting type: {wanted}")
            getattr(feature, field).value.append(element)
    return example.SerializeToString()


def _feature_element(name, value):
    """Whole numbers and booleans are int64, other numbers float, strings and base64 objects bytes."""
    if isinstance(value, int):
        check(value < 2**63, f"Feature: {name} has uint64 element. Only int64 is supported.")
        return "int64_list", int(value)
    if isinstance(value, float):
        return "float_list", _element(value, "float")
    text = f"Feature: {name} has element with unexpected JSON type: {_json_type(value)}"
    check(isinstance(value, str) or _is_base64(value), text)
    return "bytes_list", _element(value, "string")
