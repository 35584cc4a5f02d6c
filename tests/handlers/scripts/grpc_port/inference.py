"""Makes its own gRPC stub, once, from the port in the context."""
import json

import grpc
import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

_stub = None


def _connect(port):
    global _stub
    if _stub is None:
        channel = grpc.insecure_channel("localhost:" + port, options=[("grpc.max_receive_message_length", -1)])
        _stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return _stub


def handler(data, context):
    values = np.array(json.loads(data.read())["instances"], dtype=np.float32)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = context.model_name or "half_plus_three"
    if context.model_version:
        request.model_spec.version.value = int(context.model_version)
    tensor = request.inputs["x"]
    tensor.dtype = types_pb2.DT_FLOAT
    tensor.tensor_shape.dim.add().size = len(values)
    tensor.tensor_content = values.tobytes()
    try:
        result = _connect(context.grpc_port).Predict(request, 30.0)
    except grpc.RpcError as e:
        raise RuntimeError("{}: {}".format(e.code().name, e.details()))
    y = result.outputs["y"]
    values = np.frombuffer(y.tensor_content, np.float32) if y.tensor_content else np.array(y.float_val)
    answer = {"predictions": values.tolist(), "version": result.model_spec.version.value}
    return json.dumps(answer), context.accept_header
