"""From the JSON of a classify or regress request to its tf.Examples.

A feature's kind follows from its JSON: whole numbers and booleans are int64, other numbers float,
strings and base64 objects bytes. Rules and error texts are TFS's.
"""

import tensorflow as tf
from tensorflow_serving.apis import input_pb2

from local_model_server import json_values
from local_model_server.json_requests import format_error
from local_model_server.json_text import encode
from local_model_server.status import invalid_argument


def example_input(document):
    """The Input message of a request: its `examples`, with their `context`."""
    context = _example(document["context"]) if "context" in document else None
    if "examples" not in document:
        raise format_error(document, "When method is classify, key 'examples' is expected and was not found")
    values = document["examples"]
    if not isinstance(values, list):
        raise format_error(document, "Expecting 'examples' value to be an list/array")
    if not values:
        raise format_error(document, "'examples' value is an empty array")
    examples = [_example(value) for value in values]
    if context is None:
        return input_pb2.Input(example_list=input_pb2.ExampleList(examples=examples))
    both = input_pb2.ExampleListWithContext(examples=examples, context=context)
    return input_pb2.Input(example_list_with_context=both)


def _example(value):
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {json_values.json_type(value)}")
    example = tf.train.Example()
    for name, content in value.items():
        feature = example.features.feature[name]
        for item in content if isinstance(content, list) else [content]:
            _add(item, name, feature)
    return example


def _add(value, name, feature):
    value = json_values.in_64_bits(value)
    kind = type(value)
    if kind is bool:
        target, value = "int64_list", int(value)
    elif kind is int and value >= 2**63:
        raise invalid_argument(f"Feature: {name} has uint64 element. Only int64 is supported.")
    elif kind is int:
        target = "int64_list"
    elif kind is float:
        target = "float_list"
        json_values.check_lossless(value, tf.float32)
    elif kind is str:
        target, value = "bytes_list", encode(value)
    elif json_values.is_base64(value):
        target, value = "bytes_list", json_values.decode_base64(value)
    else:
        found = json_values.json_type(value)
        raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {found}")
    present = feature.WhichOneof("kind")
    if present not in (None, target):
        wanted = present.removesuffix("_list")
        raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {wanted}")
    getattr(feature, target).value.append(value)
