"""Predict over gRPC, on loopback. The other calls are what the published stubs make of them: UNIMPLEMENTED."""

import logging
from concurrent import futures

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from local_model_server import inference
from local_model_server.errors import HOST, ServingError, invalid_argument

_FIELDS = {  # of smaller whole numbers: int_val
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
}

log = logging.getLogger(__name__)


def start(port, servables):
    """A running grpc.Server."""
    options = {
        "grpc.max_receive_message_length": -1,
        "grpc.max_send_message_length": -1,
        "grpc.so_reuseport": 0,  # otherwise two servers would share a port unnoticed
    }
    server = grpc.server(futures.ThreadPoolExecutor(16), options=list(options.items()))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(servables), server)
    try:
        server.add_insecure_port(f"{HOST}:{port}")
    except RuntimeError as error:
        raise invalid_argument(f"Failed to BuildAndStart gRPC server at {HOST}:{port}: {error}") from error
    server.start()
    log.info("Running gRPC ModelServer at %s:%d ...", HOST, port)
    return server


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, servables):
        self._servables = servables

    def Predict(self, request, context):
        try:
            return self._predict(request)
        except ServingError as error:
            context.abort(error.code, error.message)

    def _predict(self, request):
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        label = spec.version_label if spec.HasField("version_label") else None
        servable = self._servables.find(spec.name, version, label)
        inputs = {alias: to_array(alias, proto) for alias, proto in request.inputs.items()}
        outputs = inference.predict(servable.model, spec.signature_name, inputs, request.output_filter)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
        response.model_spec.signature_name = spec.signature_name or inference.DEFAULT_SIGNATURE
        for alias, array in outputs.items():
            response.outputs[alias].CopyFrom(_from_array(array))
        return response


def to_array(alias, proto):
    try:
        return tf.make_ndarray(proto)
    except (TypeError, ValueError) as error:
        raise invalid_argument(f"tensor parsing error: {alias}") from error


def _from_array(array):
    """A TensorProto with its values in the typed fields, as TFS sends them: clients read these fields directly."""
    proto = tf.make_tensor_proto(array)
    if proto.tensor_content and (array.dtype.kind in "iu" or array.dtype.name in _FIELDS):
        proto.ClearField("tensor_content")
        getattr(proto, _FIELDS.get(array.dtype.name, "int_val")).extend(array.ravel().tolist())
    return proto
