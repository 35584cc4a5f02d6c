"""Asks the model over the context's gRPC channel and over REST, and compares."""
import json

import requests
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def _over_grpc(values, context):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(context.channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half_plus_three"
    request.model_spec.signature_name = "serving_default"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(values, dtype=tf.float32))
    # As a future, too: those are answered by threads of grpc's own.
    answers = [stub.Predict(request, timeout=60), stub.Predict.future(request, timeout=60).result()]
    first, second = (tf.make_ndarray(answer.outputs["y"]).tolist() for answer in answers)
    assert first == second
    return first


def handler(data, context):
    values = [float(data.read())]
    response = requests.post(context.rest_uri, json={"instances": values}, timeout=60)
    response.raise_for_status()
    if response.json()["predictions"] != _over_grpc(values, context):
        raise ValueError("another answer over gRPC")
    return json.dumps(response.json()["predictions"]), "application/json"
