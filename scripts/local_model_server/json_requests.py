"""From the JSON of a predict request to the arrays a model is fed.

The rules and the error texts are TFS's: how the row form (`instances`) and the column form (`inputs`)
are laid out, and how lists must nest. Single values are left to json_values.
"""

import numpy as np
import tensorflow as tf

from local_model_server import json_values, status
from local_model_server.json_writer import pretty
from local_model_server.status import ServingError, invalid_argument

# Where TFS's recursion into a tensor's lists has used up its stack. Elsewhere 2.19 reads any depth.
FATAL_LEVELS = 18_000
MAX_RANK = 64  # of numpy; TFS refuses from 255 dimensions on, with this text


def signature_name(document):
    """The request's `signature_name`; empty if there is none. Checks that the document is an object."""
    if not isinstance(document, dict):
        raise format_error(document, "Is not object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise format_error(document, "not formatted correctly. 'signature_name' key must be a string value.")
    return name


def predict_inputs(document, dtypes):
    """({input: array}, is row form) of a predict request; `dtypes` maps the signature's inputs."""
    if not dtypes:
        name = signature_name(document) or "DEFAULT"
        raise invalid_argument(f"Failed to get input map for signature: {name}")
    if "instances" in document:
        if "inputs" in document:
            raise format_error(
                document,
                "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
            )
        instances = document["instances"]
        if not isinstance(instances, list):
            raise format_error(document, "Expecting 'instances' to be an list/array")
        if not instances:
            raise format_error(document, "No values in 'instances' array")
        return _rows(instances, dtypes), True
    if "inputs" in document:
        return _columns(document["inputs"], dtypes), False
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def _rows(instances, dtypes):
    if not isinstance(instances[0], dict) and len(dtypes) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    objects = _is_object(instances[0])
    only = next(iter(dtypes))
    columns = {}
    for index, instance in enumerate(instances):
        where = f"Failed to process element: {index}"
        if objects != _is_object(instance):
            wanted, got = ("object", "list") if objects else ("value/list", "object")
            raise invalid_argument(f"Expecting {wanted} but got {got} at item {index} of input list")
        for name, value in instance.items() if objects else ((only, instance),):
            try:
                if name not in dtypes:
                    raise invalid_argument(f"JSON object: does not have named input: {name}")
                columns.setdefault(name, _Column(name, dtypes[name])).add(value)
            except ServingError as error:
                key = f" key: {name}" if objects else ""
                raise invalid_argument(f"{where}{key} of 'instances' list. Error: {error}") from None
        if objects and instance.keys() != dtypes.keys():
            raise invalid_argument(
                f"{where} of 'instances' list. JSON object: {pretty(instance)} "
                f"keys must be equal to: {','.join(sorted(dtypes))}"
            )
    return {name: column.array(len(instances)) for name, column in columns.items()}


def _columns(inputs, dtypes):
    if not _is_object(inputs):
        if len(dtypes) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        inputs = {name: inputs for name in dtypes}
    arrays = {}
    for name, dtype in dtypes.items():
        if name not in inputs:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        column = _Column(name, dtype)
        column.add(inputs[name])
        arrays[name] = column.array()
    return arrays


class _Column:
    """The values of one input, gathered over the instances, which must all have one shape."""

    def __init__(self, name, dtype):
        self._name = name
        self._dtype = tf.dtypes.as_dtype(dtype)
        self._shape = None  # until the first value
        self._size = 0  # elements of one value
        self._values = []

    def add(self, value):
        shape = _shape_of(value)
        if len(shape) >= FATAL_LEVELS:
            status.die(f"JSON nested {len(shape)} levels deep overflows the stack, as in TFS")
        before = len(self._values)
        self._fill(value, shape)
        if self._shape is None:
            self._shape, self._size = shape, len(self._values)
            return
        size = len(self._values) - before
        if size != self._size:
            raise invalid_argument(f"Expecting tensor size: {self._size} but got: {size}")
        if shape != self._shape:
            raise invalid_argument(f"Expecting shape {_brackets(self._shape)} but got: {_brackets(shape)}")

    def array(self, *batch):
        shape = [*batch, *self._shape]
        if len(shape) > MAX_RANK:
            raise invalid_argument(f"tensor parsing error: {self._name}")
        if self._dtype in json_values.INT_RANGE:
            wide = np.uint64 if self._dtype == tf.uint64 else np.int64
            flat = np.array(self._values, wide).astype(self._dtype.as_numpy_dtype)
        else:
            flat = np.array(self._values, self._dtype.as_numpy_dtype)
        return flat.reshape(shape)

    def _fill(self, value, shape):
        todo = [(value, 0)]  # no recursion: Python's ends long before FATAL_LEVELS
        while todo:
            value, level = todo.pop()
            if not isinstance(value, list):
                if level != len(shape):
                    raise invalid_argument(
                        f"JSON Value: {pretty(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                        f"Expected at level: {len(shape)}"
                    )
                self._values.append(json_values.element(value, self._dtype))
            elif level >= len(shape):
                raise invalid_argument(
                    f"Encountered list at unexpected level: {level} expected < {len(shape)}"
                )
            elif len(value) != shape[level]:
                raise invalid_argument(
                    f"Encountered list at unexpected size: {len(value)} at level: {level} "
                    f"expected size: {shape[level]}"
                )
            elif level == len(shape) - 1 and json_values.all_plain_numbers(value, self._dtype):
                self._values.extend(value)
            else:
                todo.extend((item, level + 1) for item in reversed(value))


def _is_object(value):
    return isinstance(value, dict) and not json_values.is_base64(value)


def _shape_of(value):
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _brackets(shape):
    return f"[{','.join(map(str, shape))}]"


def format_error(document, text):
    return invalid_argument(f"JSON Value: {pretty(document)} {text}")
