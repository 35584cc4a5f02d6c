"""Asks the model over the context's gRPC channel, which stays the same, and over REST."""
import json
import os

import requests
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

channels = []


def over_grpc(values, context):
    if context.channel not in channels:
        channels.append(context.channel)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(context.channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = context.model_name or os.environ["TFS_DEFAULT_MODEL_NAME"]
    request.model_spec.signature_name = "serving_default"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(values, dtype=tf.float32))
    # As a future, too: threads of grpc's own answer these.
    answers = [stub.Predict(request, timeout=60), stub.Predict.future(request, timeout=60).result()]
    first, second = (tf.make_ndarray(answer.outputs["y"]).tolist() for answer in answers)
    assert first == second
    return first


def handler(data, context):
    values = json.loads(data.read())
    predictions = over_grpc(values, context)
    response = requests.post(context.rest_uri, json={"instances": values}, timeout=context.timeout)
    response.raise_for_status()
    assert response.json()["predictions"] == predictions
    return json.dumps({"predictions": predictions, "channels": len(channels)}), "application/json"
