"""TensorProto to array and back.

Arrays become protos with their values in the typed fields (`float_val` and so on), as TFS sends them:
clients read these fields directly, which `tf.make_tensor_proto` would leave empty.
"""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from local_model_server.status import invalid_argument

_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.string: "string_val",
    tf.bool: "bool_val",
    tf.int8: "int_val",
    tf.int16: "int_val",
    tf.int32: "int_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
}


def to_array(alias, proto):
    try:
        return tf.make_ndarray(proto)
    except (TypeError, ValueError) as error:
        raise invalid_argument(f"tensor parsing error: {alias}") from error


def from_array(array):
    dtype = tf.dtypes.as_dtype(array.dtype)
    if dtype not in _FIELDS:  # complex and 16-bit floats
        return tf.make_tensor_proto(array)
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    proto.tensor_shape.SetInParent()  # there for a scalar, too
    for size in np.shape(array):
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, _FIELDS[dtype]).extend(array.ravel().tolist())
    return proto
