"""Predict, classify and regress by the signatures of a loaded model. The checks and their texts are TFS's."""

import numpy as np
import tensorflow as tf
from grpc import StatusCode

from local_model_server.errors import ServingError, check, type_name

DEFAULT_SIGNATURE = "serving_default"


def predict(model, signature_name, inputs, output_filter=(), timeout_ms=0):
    """{output: array} for {input: array}; all outputs of the signature unless filtered."""
    name = signature_name or DEFAULT_SIGNATURE
    if name not in model.signatures:
        raise ServingError(StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    signature = model.signatures[name]
    _check_inputs(signature, inputs)
    for alias in output_filter:
        check(alias in signature.outputs, f"output tensor alias not found in signature: {alias}")
    outputs = list(output_filter) or sorted(signature.outputs)
    arrays = model.run(
        {signature.inputs[alias].name: array for alias, array in inputs.items()},
        [signature.outputs[alias].name for alias in outputs],
        timeout_ms,
    )
    return dict(zip(outputs, arrays))


def _check_inputs(signature, inputs):
    given, wanted = set(inputs), set(signature.inputs)
    check(
        given == wanted,
        f"input size does not match signature: {len(given)}!={len(wanted)} len({_set(given)}) != "
        f"len({_set(wanted)}). Sent extra: {_set(given - wanted)}. Missing but required: {_set(wanted - given)}.",
    )
    for index, (alias, array) in enumerate(sorted(inputs.items())):
        expected, found = type_name(tf.dtypes.as_dtype(signature.inputs[alias].dtype)), type_name(array.dtype)
        check(found == expected, f"Expects arg[{index}] to be {expected} but {found} is provided")


def _set(names):
    return f"{{{','.join(sorted(names))}}}"


def classify(model, signature_name, examples, timeout_ms):
    """The labels and scores for serialized examples, two arrays with a row for each."""
    outputs = _run_on_examples(model, signature_name, "classify", "classification", examples, timeout_ms)
    shape = next(iter(outputs.values())).shape
    return outputs.get("classes", np.full(shape, b"", object)), outputs.get("scores", np.zeros(shape, np.float32))


def regress(model, signature_name, examples, timeout_ms):
    """An array with a value for each of the serialized examples."""
    return _run_on_examples(model, signature_name, "regress", "regression", examples, timeout_ms)["outputs"]


def _run_on_examples(model, signature_name, method, noun, examples, timeout_ms):
    """All outputs of a signature that takes serialized examples."""
    name = signature_name or DEFAULT_SIGNATURE
    check(name in model.signatures, f"No signature was found with the name: {name}")
    signature = model.signatures[name]
    wanted, found = f"tensorflow/serving/{method}", signature.method_name
    check(found == wanted, f"Expected {noun} signature method_name to be {wanted}. Was: {found}")
    feed = {signature.inputs["inputs"].name: np.array(examples, object)}
    arrays = model.run(feed, [info.name for info in signature.outputs.values()], timeout_ms)
    return dict(zip(signature.outputs, arrays))
