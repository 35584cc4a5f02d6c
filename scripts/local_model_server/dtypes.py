"""The names of tensor types in TFS's error texts, which differ from TensorFlow's for floats."""

import tensorflow as tf

_NAMES = {"float32": "float", "float64": "double", "float16": "half"}


def type_name(dtype):
    """The name for a TensorFlow type, a numpy type or a DataType number."""
    name = tf.dtypes.as_dtype(dtype).name
    return _NAMES.get(name, name)
