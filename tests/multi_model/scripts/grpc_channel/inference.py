"""Asks its own model over the channel of the context, already while it is loaded over one of its own."""
import json
import os

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

MODEL = os.environ["TFS_DEFAULT_MODEL_NAME"]


def ask(channel, values):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    request.model_spec.signature_name = "serving_default"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(values, dtype=tf.float32))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return tf.make_ndarray(stub.Predict(request, timeout=20).outputs["y"]).tolist()


with grpc.insecure_channel(f"localhost:{os.environ['TFS_GRPC_PORTS']}") as own:
    WARM = ask(own, [8.0])


def handler(data, context):
    values = json.loads(data.read())["instances"]
    answer = {"model": context.model_name, "warm": WARM, "predictions": ask(context.channel, values)}
    return json.dumps(answer), "application/json"
