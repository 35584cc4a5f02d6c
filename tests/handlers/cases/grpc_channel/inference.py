"""Asks the model over gRPC, on the context's channel and on one of its own that stays, and over REST."""

import json
import os

import grpc
import requests
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

channels = []
stub = None


def connect(port):
    global stub
    if stub is None:
        channel = grpc.insecure_channel("localhost:" + port, options=[("grpc.max_receive_message_length", -1)])
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return stub


def over_grpc(values, context):
    if context.channel not in channels:
        channels.append(context.channel)
    given = prediction_service_pb2_grpc.PredictionServiceStub(context.channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = context.model_name or os.environ["TFS_DEFAULT_MODEL_NAME"]
    if context.model_version:
        request.model_spec.version.value = int(context.model_version)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(values, dtype=tf.float32))
    # As a future, too: threads of grpc's own answer these.
    answers = [given.Predict(request, 60.0), given.Predict.future(request, 60.0).result()]
    answers.append(connect(context.grpc_port).Predict(request, 60.0))
    first = answers[0]
    assert all(answer == first for answer in answers)
    return tf.make_ndarray(first.outputs["y"]).tolist(), first.model_spec.version.value


def handler(data, context):
    values = json.loads(data.read())
    predictions, version = over_grpc(values, context)
    response = requests.post(context.rest_uri, json={"instances": values}, timeout=context.timeout)
    response.raise_for_status()
    assert response.json()["predictions"] == predictions
    return json.dumps({"predictions": predictions, "version": version, "channels": len(channels)}), "application/json"
