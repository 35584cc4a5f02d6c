"""Makes its own gRPC stub, once, from the port in the context."""
import json

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

stub = None


def connect(port):
    global stub
    if stub is None:
        channel = grpc.insecure_channel("localhost:" + port, options=[("grpc.max_receive_message_length", -1)])
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return stub


def handler(data, context):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = context.model_name or "half_plus_three"
    if context.model_version:
        request.model_spec.version.value = int(context.model_version)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(json.loads(data.read()), dtype=tf.float32))
    try:
        result = connect(context.grpc_port).Predict(request, 30.0)
    except grpc.RpcError as error:
        raise RuntimeError(f"{error.code().name}: {error.details()}")
    answer = {"predictions": tf.make_ndarray(result.outputs["y"]).tolist(), "version": result.model_spec.version.value}
    return json.dumps(answer), context.accept_header
