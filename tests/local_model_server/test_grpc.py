"""Predict over gRPC, called with the published stubs."""

import unittest

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tests.harness.client import ANSWER_SECONDS
from tests.harness.constants import HOST

from .case import shared

X = tf.make_tensor_proto([[1], [2]], tf.float32)
# By signature: inputs with their types and values, and outputs with the fields and values in which they come.
TYPES = {
    "serving_default": (
        ("f", tf.float32, [1, 2], "half", "float_val", [0.5, 1]),
        ("i", tf.int64, [2**40, 1], "next", "int64_val", [2**40 + 1, 2]),
        ("b", tf.bool, [True, False], "not", "bool_val", [False, True]),
        ("s", tf.string, [b"\xff\x00", b""], "text", "string_val", [b"\xff\x00", b""]),
    ),
    "numbers": (
        ("double", tf.float64, [0.5, 1.5], "double", "double_val", [0.5, 1.5]),
        ("int32", tf.int32, [1, 2], "int32", "int_val", [1, 2]),
        ("uint8", tf.uint8, [3, 4], "uint8", "int_val", [3, 4]),
    ),
}


class Grpc(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(f"{HOST}:{shared().grpc_port}", options=unlimited)
        cls.addClassCleanup(channel.close)
        cls.stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def predict(self, name, inputs, signature="", version=None, outputs=()):
        spec = {"name": name, "signature_name": signature, "version": version and {"value": version}}
        request = predict_pb2.PredictRequest(model_spec=spec, inputs=inputs, output_filter=outputs)
        return self.stub.Predict(request, timeout=ANSWER_SECONDS)

    def test_versions(self):
        for version in (None, 123):
            response = self.predict("half_plus_three", {"x": X}, version=version)
            self.assertEqual(list(response.outputs["y"].float_val), [3.5, 4.0])
            self.assertEqual([dim.size for dim in response.outputs["y"].tensor_shape.dim], [2, 1])
            spec = response.model_spec
            found = (spec.name, spec.version.value, spec.signature_name)
            self.assertEqual(found, ("half_plus_three", version or 124, "serving_default"))

    def test_every_type_comes_in_its_own_field(self):
        for signature, rows in TYPES.items():
            inputs = {alias: tf.make_tensor_proto(values, dtype) for alias, dtype, values, *_ in rows}
            outputs = self.predict("types", inputs, signature).outputs
            for *_, alias, field, values in rows:
                self.assertEqual(list(getattr(outputs[alias], field)), values, alias)
            # A request may name the outputs that it wants.
            self.assertEqual(list(self.predict("types", inputs, signature, outputs=[alias]).outputs), [alias])

    def test_large_messages(self):
        values = tf.make_tensor_proto(tf.zeros([2_000_000]))  # 8 MB each way; the default limit is 4
        self.assertEqual(len(self.predict("half_plus_three", {"x": values}).outputs["y"].float_val), 2_000_000)

    def test_errors(self):
        broken = tf.make_tensor_proto([1, 2], tf.float32)
        broken.tensor_content = b"123"
        integers = tf.make_tensor_proto([1], tf.int64)
        for arguments, code, text in (
            (("x", {"x": X}), "NOT_FOUND", "Servable not found for request: Latest(x)"),
            (("half_plus_three", {"x": X}, "z"), "FAILED_PRECONDITION", 'Serving signature key "z" not found.'),
            (("half_plus_three", {"z": X}), "INVALID_ARGUMENT", "Sent extra: {z}. Missing but required: {x}."),
            (("half_plus_three", {"x": integers}), "INVALID_ARGUMENT", "arg[0] to be float but int64 is provided"),
            (("half_plus_three", {"x": broken}), "INVALID_ARGUMENT", "tensor parsing error: x"),
        ):
            with self.subTest(text), self.assertRaises(grpc.RpcError) as raised:
                self.predict(*arguments)
            self.assertEqual(raised.exception.code().name, code)
            self.assertIn(text, raised.exception.details())
