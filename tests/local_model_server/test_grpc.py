"""Predict over gRPC, called with the published stubs."""

import unittest

import grpc
import tensorflow as tf
from harness import ANSWER_SECONDS, shared_server
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

X = tf.make_tensor_proto([1, 2], tf.float32)


class Grpc(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(f"127.0.0.1:{shared_server().grpc_port}", options=unlimited)
        cls.addClassCleanup(channel.close)
        cls.stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def predict(self, name, inputs, signature="", version=None, outputs=()):
        request = predict_pb2.PredictRequest(output_filter=outputs)
        request.model_spec.name = name
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        for alias, value in inputs.items():
            request.inputs[alias].CopyFrom(value)
        return self.stub.Predict(request, timeout=ANSWER_SECONDS)

    def test_versions(self):
        for version in (None, 123):
            response = self.predict("half_plus_three", {"x": X}, version=version)
            self.assertEqual(list(response.outputs["y"].float_val), [3.5, 4.0])
            self.assertEqual(response.outputs["y"].tensor_shape.dim[0].size, 2)
            spec = response.model_spec
            found = (spec.name, spec.version.value, spec.signature_name)
            self.assertEqual(found, ("half_plus_three", version or 124, "serving_default"))

    def test_every_type_comes_in_its_own_field(self):
        inputs = {
            "f": X,
            "i": tf.make_tensor_proto([2**40, 1], tf.int64),
            "b": tf.make_tensor_proto([True, False]),
            "s": tf.make_tensor_proto([b"\xff\x00", b""]),
        }
        outputs = self.predict("types", inputs).outputs
        self.assertEqual(list(outputs["half"].float_val), [0.5, 1])
        self.assertEqual(list(outputs["next"].int64_val), [2**40 + 1, 2])
        self.assertEqual(list(outputs["not"].bool_val), [False, True])
        self.assertEqual(list(outputs["text"].string_val), [b"\xff\x00", b""])
        self.assertEqual([dim.size for dim in outputs["pair"].tensor_shape.dim], [2, 2])
        inputs = {
            "double": tf.make_tensor_proto([0.5, 1.5], tf.float64),
            "int32": tf.make_tensor_proto([1, 2], tf.int32),
            "uint8": tf.make_tensor_proto([3, 4], tf.uint8),
        }
        outputs = self.predict("types", inputs, "numbers", outputs=["double", "uint8"]).outputs
        found = {name: list(output.double_val or output.int_val) for name, output in outputs.items()}
        self.assertEqual(found, {"double": [0.5, 1.5], "uint8": [3, 4]})

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
