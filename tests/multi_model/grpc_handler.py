"""Asks the model over the context's channel. A model's own handler also asks on its own, while the script loads."""

import json
import os

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def ask(channel, model, values):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(values, dtype=tf.float32))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return tf.make_ndarray(stub.Predict(request, timeout=20).outputs["y"]).tolist()


warm = None
if port := os.environ["TFS_GRPC_PORTS"]:
    with grpc.insecure_channel(f"localhost:{port}") as own:
        warm = ask(own, os.environ["TFS_DEFAULT_MODEL_NAME"], [8.0])


def handler(data, context):
    predictions = ask(context.channel, context.model_name, json.loads(data.read())["instances"])
    rest_port = int(context.grpc_port) + 1
    answer = {
        "model": context.model_name,
        "path": context.rest_uri.removeprefix(f"http://localhost:{rest_port}"),
        "warm": warm,
        "predictions": predictions,
    }
    return json.dumps(answer), "application/json"
