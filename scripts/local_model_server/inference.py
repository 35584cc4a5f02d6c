"""Predict, classify and regress on a loaded model: the rules that REST and gRPC share.

A signature says which tensors are fed and fetched. Its checks, and their texts, are TFS's.
"""

import numpy as np
import tensorflow as tf

from local_model_server.dtypes import type_name
from local_model_server.status import ServingError, invalid_argument

DEFAULT_SIGNATURE = "serving_default"
PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


def predict(model, signature_name, inputs, output_filter=(), timeout_ms=0):
    """{output: array} for {input: array}; all outputs of the signature unless filtered."""
    name = signature_name or DEFAULT_SIGNATURE
    if name not in model.signatures:
        raise ServingError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
    signature = model.signatures[name]
    if signature.method_name not in (PREDICT, CLASSIFY, REGRESS):
        raise ServingError(
            "INTERNAL",
            "Expected prediction signature method_name to be one of "
            f"{{{PREDICT}, {CLASSIFY}, {REGRESS}}}. Was: {signature.method_name}",
        )
    _check_inputs(signature, inputs)
    outputs = _chosen_outputs(signature, output_filter)
    arrays = model.run(
        {signature.inputs[alias].name: array for alias, array in inputs.items()},
        [signature.outputs[alias].name for alias in outputs],
        timeout_ms,
    )
    return dict(zip(outputs, arrays))


def classify(model, signature_name, examples, timeout_ms=0):
    """[[(label, score)]] for an Input message."""
    signature = _signature_for(model, signature_name, CLASSIFY, "classification")
    wanted = [name for name in ("classes", "scores") if name in signature.outputs]
    if not wanted:
        raise ServingError(
            "FAILED_PRECONDITION",
            "Expected classification signature outputs to contain at "
            f'least one of "classes" or "scores". Signature was: {signature}',
        )
    arrays, count = _run_on_examples(model, signature, wanted, examples, timeout_ms)
    for name, dtype in (("classes", tf.string), ("scores", tf.float32)):
        if name in arrays:
            _check_class_output(name, arrays[name], dtype, count)
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1:
        raise invalid_argument(
            "Tensors class and score should match in dim_size(1). Got "
            f"{arrays['classes'].shape[1]} vs. {arrays['scores'].shape[1]}"
        )
    shape = shapes.pop()
    labels = arrays.get("classes", np.full(shape, b"", object))
    scores = arrays.get("scores", np.zeros(shape, np.float32))
    return [
        [(label.decode("utf-8", "surrogateescape"), score) for label, score in zip(*row)]
        for row in zip(labels.tolist(), scores.tolist())
    ]


def regress(model, signature_name, examples, timeout_ms=0):
    """[value] for an Input message."""
    signature = _signature_for(model, signature_name, REGRESS, "regression")
    if "outputs" not in signature.outputs:
        raise ServingError("FAILED_PRECONDITION", f"No regression outputs found in SignatureDef: {signature}")
    arrays, count = _run_on_examples(model, signature, ["outputs"], examples, timeout_ms)
    values = arrays["outputs"]
    if not (values.ndim == 1 or values.ndim == 2 and values.shape[1] == 1):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] "
            f"but got {_shape(values)}"
        )
    if values.shape[0] != count:
        raise invalid_argument(
            f"Input batch size did not match output batch size: {count} vs. {values.shape[0]}"
        )
    if values.dtype != np.float32:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {_dt_name(values)}")
    return values.ravel().tolist()


def _check_inputs(signature, inputs):
    given, wanted = set(inputs), set(signature.inputs)
    if len(given) != len(wanted):
        raise invalid_argument(
            f"input size does not match signature: {len(given)}!={len(wanted)} len({_set(given)}) != "
            f"len({_set(wanted)}). Sent extra: {_set(given - wanted)}. "
            f"Missing but required: {_set(wanted - given)}."
        )
    for index, (alias, array) in enumerate(sorted(inputs.items())):
        if alias not in wanted:
            raise invalid_argument(
                f"input tensor alias not found in signature: {alias}. "
                f"Inputs expected to be in the set {_set(wanted)}."
            )
        expected = tf.dtypes.as_dtype(signature.inputs[alias].dtype)
        if tf.dtypes.as_dtype(array.dtype) != expected:
            raise invalid_argument(
                f"Expects arg[{index}] to be {type_name(expected)} but {type_name(array.dtype)} is provided"
            )


def _chosen_outputs(signature, output_filter):
    seen = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_set(signature.outputs)}."
            )
        if alias in seen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        seen.append(alias)
    return seen or sorted(signature.outputs)


def _signature_for(model, signature_name, method, word):
    name = signature_name or DEFAULT_SIGNATURE
    if name not in model.signatures:
        raise invalid_argument(f"No signature was found with the name: {name}")
    signature = model.signatures[name]
    if signature.method_name != method:
        raise invalid_argument(
            f"Expected {word} signature method_name to be {method}. Was: {signature.method_name}"
        )
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if "inputs" not in signature.inputs:
        raise ServingError("FAILED_PRECONDITION", f"No {word} inputs found in SignatureDef: {signature}")
    return signature


def _run_on_examples(model, signature, outputs, examples, timeout_ms):
    serialized = _serialize(examples)
    if not serialized:
        raise invalid_argument("Input is empty.")
    feed = {signature.inputs["inputs"].name: np.array(serialized, object)}
    arrays = model.run(feed, [signature.outputs[name].name for name in outputs], timeout_ms)
    return dict(zip(outputs, arrays)), len(serialized)


def _serialize(examples):
    """Each tf.Example in bytes. A context is merged by putting its bytes in front, as TFS does."""
    if examples.WhichOneof("kind") == "example_list_with_context":
        examples = examples.example_list_with_context
        context = examples.context.SerializeToString()
    else:
        examples, context = examples.example_list, b""
    return [context + example.SerializeToString() for example in examples.examples]


def _check_class_output(name, array, dtype, count):
    if array.ndim != 2:
        raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
    if tf.dtypes.as_dtype(array.dtype) != dtype:
        wanted = "DT_STRING" if dtype == tf.string else "DT_FLOAT"
        raise invalid_argument(f"Expected {name} Tensor of {wanted}. Got: {_dt_name(array)}")
    if array.shape[0] != count:
        raise invalid_argument(f"Expected {name} output batch size of {count}. Got: {array.shape[0]}")


def _dt_name(array):
    return f"DT_{type_name(array.dtype).upper()}"


def _shape(array):
    return f"[{','.join(map(str, array.shape))}]"


def _set(names):
    return f"{{{','.join(sorted(names))}}}"
