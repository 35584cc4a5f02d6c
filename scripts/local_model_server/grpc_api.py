"""The gRPC services on loopback: PredictionService and ModelService, with the published stubs.

MultiInference and HandleReloadConfigRequest stay what the stubs make of them: UNIMPLEMENTED.
"""

import os
from concurrent import futures

import grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from local_model_server import inference, log, tensor_proto
from local_model_server.http_server import HOST
from local_model_server.json_text import encode
from local_model_server.status import ServingError, invalid_argument

THREADS = max(16, 4 * (os.cpu_count() or 1))  # calls worked on at a time
_METADATA_FIELD = "signature_def"


def start(port, servables):
    """A running grpc.Server."""
    if not port:
        raise invalid_argument("server_options.grpc_port is not set.")
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=THREADS),
        options=(
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # else two servers would share a port unnoticed
        ),
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(servables), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Model(servables), server)
    address = f"{HOST}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError:
        bound = 0
    if not bound:
        raise invalid_argument(f"Failed to BuildAndStart gRPC server at {address}: is the port in use?")
    server.start()
    log.info("grpc_api", f"Running gRPC ModelServer at {address} ...")
    return server


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, servables):
        self._servables = servables

    def Predict(self, request, context):
        with _Errors(context):
            servable = _find(self._servables, request.model_spec)
            inputs = {alias: tensor_proto.to_array(alias, proto) for alias, proto in request.inputs.items()}
            signature = request.model_spec.signature_name or inference.DEFAULT_SIGNATURE
            outputs = inference.predict(servable.model, signature, inputs, list(request.output_filter))
            response = predict_pb2.PredictResponse()
            _fill_spec(response.model_spec, servable, signature)
            for alias, array in outputs.items():
                response.outputs[alias].CopyFrom(tensor_proto.from_array(array))
            return response

    def Classify(self, request, context):
        with _Errors(context):
            servable = _find(self._servables, request.model_spec)
            signature = request.model_spec.signature_name or inference.DEFAULT_SIGNATURE
            response = classification_pb2.ClassificationResponse()
            for classes in inference.classify(servable.model, signature, request.input):
                entry = response.result.classifications.add()
                for label, score in classes:
                    entry.classes.add(label=encode(label).decode("utf-8", "replace"), score=score)
            _fill_spec(response.model_spec, servable, signature)
            return response

    def Regress(self, request, context):
        with _Errors(context):
            servable = _find(self._servables, request.model_spec)
            signature = request.model_spec.signature_name or inference.DEFAULT_SIGNATURE
            response = regression_pb2.RegressionResponse()
            for value in inference.regress(servable.model, signature, request.input):
                response.result.regressions.add(value=value)
            _fill_spec(response.model_spec, servable, signature)
            return response

    def GetModelMetadata(self, request, context):
        with _Errors(context):
            if not request.HasField("model_spec"):
                raise invalid_argument("Missing ModelSpec")
            if not request.metadata_field:
                raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
            for field in request.metadata_field:
                if field != _METADATA_FIELD:
                    raise invalid_argument(f"Metadata field {field} is not supported")
            servable = _find(self._servables, request.model_spec)
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, signature in servable.model.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            _fill_spec(response.model_spec, servable)
            response.metadata[_METADATA_FIELD].Pack(signatures)
            return response


class _Model(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, servables):
        self._servables = servables

    def GetModelStatus(self, request, context):
        with _Errors(context):
            if not request.HasField("model_spec"):
                raise invalid_argument("Missing ModelSpec")
            response = get_model_status_pb2.GetModelStatusResponse()
            self._servables.fill_status(response, *_spec(request.model_spec))
            return response


class _Errors:
    """Turns an exception inside the block into the call's status code and text."""

    def __init__(self, context):
        self._context = context

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if error is None:
            return
        if not isinstance(error, ServingError):
            log.error("grpc_api", f"{kind.__name__}: {error}")
            error = ServingError("INTERNAL", f"{kind.__name__}: {error}")
        self._context.abort(grpc.StatusCode[error.code], error.message)


def _spec(model_spec):
    choice = model_spec.WhichOneof("version_choice")
    version = model_spec.version.value if choice == "version" else None
    label = model_spec.version_label if choice == "version_label" else None
    return model_spec.name, version, label


def _find(servables, model_spec):
    return servables.find(*_spec(model_spec))


def _fill_spec(model_spec, servable, signature_name=""):
    model_spec.name = servable.name
    model_spec.version.value = servable.version
    model_spec.signature_name = signature_name
