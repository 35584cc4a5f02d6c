"""The gRPC services, called with the published stubs."""

import unittest

import grpc
import tensorflow as tf
from harness import ANSWER_SECONDS, shared_server
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)


def predict_request(model, inputs, signature=""):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(value)
    return request


def floats(*values):
    return tf.make_tensor_proto(values, tf.float32)


class Grpc(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        cls.channel = grpc.insecure_channel(f"127.0.0.1:{shared_server().grpc_port}", options=unlimited)
        cls.addClassCleanup(cls.channel.close)
        cls.prediction = prediction_service_pb2_grpc.PredictionServiceStub(cls.channel)
        cls.model = model_service_pb2_grpc.ModelServiceStub(cls.channel)

    def refuse(self, method, request, code, text):
        with self.subTest(text), self.assertRaises(grpc.RpcError) as raised:
            method(request, timeout=ANSWER_SECONDS)
        self.assertEqual((raised.exception.code(), raised.exception.details()), (code, text))

    def predict(self, request):
        return self.prediction.Predict(request, timeout=ANSWER_SECONDS)

    def test_predict(self):
        response = self.predict(predict_request("half_plus_three", {"x": floats(1, 2, 5)}))
        self.assertEqual(list(response.outputs["y"].float_val), [3.5, 4.0, 5.5])
        self.assertEqual([dim.size for dim in response.outputs["y"].tensor_shape.dim], [3])
        self.assertEqual(response.model_spec.name, "half_plus_three")
        self.assertEqual(response.model_spec.version.value, 124)
        self.assertEqual(response.model_spec.signature_name, "serving_default")

    def test_versions_and_labels(self):
        request = predict_request("half_plus_three", {"x": floats(1)})
        request.model_spec.version.value = 123
        self.assertEqual(self.predict(request).model_spec.version.value, 123)
        request.model_spec.version_label = "stable"
        self.assertEqual(self.predict(request).model_spec.version.value, 123)

    def test_every_type_comes_in_its_own_field(self):
        inputs = {
            "f": floats(1),
            "i": tf.make_tensor_proto([2**40]),
            "b": tf.make_tensor_proto([True]),
            "s": tf.make_tensor_proto([b"\xff\x00"]),
        }
        inputs["i"].dtype = tf.int64.as_datatype_enum
        outputs = self.predict(predict_request("types", inputs)).outputs
        self.assertEqual(list(outputs["half"].float_val), [0.5])
        self.assertEqual(list(outputs["next"].int64_val), [2**40 + 1])
        self.assertEqual(list(outputs["not"].bool_val), [False])
        self.assertEqual(list(outputs["text"].string_val), [b"\xff\x00"])
        self.assertEqual([dim.size for dim in outputs["pair"].tensor_shape.dim], [1, 2])
        scalar = self.predict(predict_request("types", {"x": tf.make_tensor_proto([[1.0, 2.0]])}, "sums"))
        self.assertEqual(tf.make_ndarray(scalar.outputs["total"]).shape, ())

    def test_output_filter(self):
        request = predict_request("demo", {"measures": tf.make_tensor_proto([[5.0, 3.4, 1.5, 0.2]])})
        request.output_filter.append("label")
        self.assertEqual(list(self.predict(request).outputs), ["label"])
        request.output_filter.append("label")
        self.refuse(
            self.prediction.Predict,
            request,
            grpc.StatusCode.INVALID_ARGUMENT,
            "duplicate output tensor alias: label",
        )

    def test_large_messages(self):
        values = tf.make_tensor_proto(tf.zeros([2_000_000]))  # 8 MB each way; the default limit is 4
        response = self.predict(predict_request("half_plus_three", {"x": values}))
        self.assertEqual(len(response.outputs["y"].float_val), 2_000_000)

    def test_predict_errors(self):
        invalid, x = grpc.StatusCode.INVALID_ARGUMENT, {"x": floats(1)}
        for request, code, text in (
            (predict_request("", x), invalid, "ModelSpec has no name specified."),
            (predict_request("x", x), grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(x)"),
            (
                predict_request("half_plus_three", x, "z"),
                grpc.StatusCode.FAILED_PRECONDITION,
                'Serving signature key "z" not found.',
            ),
            (
                predict_request("half_plus_three", {"z": floats(1)}),
                invalid,
                "input tensor alias not found in signature: z. Inputs expected to be in the set {x}.",
            ),
            (
                predict_request("half_plus_three", {**x, "z": floats(1)}),
                invalid,
                "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. "
                "Missing but required: {}.",
            ),
            (
                predict_request("half_plus_three", {"x": tf.make_tensor_proto([1], tf.int64)}),
                invalid,
                "Expects arg[0] to be float but int64 is provided",
            ),
        ):
            self.refuse(self.prediction.Predict, request, code, text)

    def test_a_tensor_that_is_none(self):
        request = predict_request("half_plus_three", {"x": floats(1, 2)})
        request.inputs["x"].tensor_content = b"123"
        self.refuse(
            self.prediction.Predict, request, grpc.StatusCode.INVALID_ARGUMENT, "tensor parsing error: x"
        )

    def examples(self, kind, signature):
        request = kind()
        request.model_spec.name = "half_plus_three"
        request.model_spec.signature_name = signature
        for value in (1.0, 2.0):
            example = request.input.example_list.examples.add()
            example.features.feature["x"].float_list.value.append(value)
        return request

    def test_regress(self):
        request = self.examples(regression_pb2.RegressionRequest, "regress_x_to_y")
        response = self.prediction.Regress(request, timeout=ANSWER_SECONDS)
        self.assertEqual([entry.value for entry in response.result.regressions], [3.5, 4.0])
        request.input.Clear()
        self.refuse(self.prediction.Regress, request, grpc.StatusCode.INVALID_ARGUMENT, "Input is empty.")

    def test_classify(self):
        request = self.examples(classification_pb2.ClassificationRequest, "classify_x_to_y")
        response = self.prediction.Classify(request, timeout=ANSWER_SECONDS)
        scores = [[entry.score for entry in item.classes] for item in response.result.classifications]
        self.assertEqual(scores, [[3.5], [4.0]])

    def test_metadata(self):
        request = get_model_metadata_pb2.GetModelMetadataRequest()
        request.model_spec.name = "half_plus_three"
        method = self.prediction.GetModelMetadata
        self.refuse(
            method,
            request,
            grpc.StatusCode.INVALID_ARGUMENT,
            "GetModelMetadataRequest must specify at least one metadata_field",
        )
        request.metadata_field.append("signature_def")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        method(request, timeout=ANSWER_SECONDS).metadata["signature_def"].Unpack(signatures)
        self.assertIn("regress_x_to_y", signatures.signature_def)

    def test_status(self):
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "half_plus_three"
        response = self.model.GetModelStatus(request, timeout=ANSWER_SECONDS)
        state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        found = [(entry.version, entry.state) for entry in response.model_version_status]
        self.assertEqual(found, [(124, state), (123, state)])
        request.model_spec.name = "x"
        self.refuse(
            self.model.GetModelStatus,
            request,
            grpc.StatusCode.NOT_FOUND,
            "Could not find any versions of model x",
        )

    def test_what_is_not_there_says_so(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.prediction.MultiInference(inference_pb2.MultiInferenceRequest(), timeout=ANSWER_SECONDS)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.UNIMPLEMENTED)
