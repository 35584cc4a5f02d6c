"""Plays the warm-up file of a version of a model before it counts as loaded. A record that fails, fails the version."""

import logging
import os

import tensorflow as tf
from google.protobuf.message import DecodeError
from grpc import StatusCode
from tensorflow_serving.apis import prediction_log_pb2

from local_model_server import inference
from local_model_server.errors import ServingError, check, invalid_argument
from local_model_server.grpc_api import to_array

FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000

log = logging.getLogger(__name__)


def play(model, path, iterations):
    file = os.path.join(path, FILE)
    if not os.path.exists(file):
        return
    records = 0
    try:
        for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
            try:
                request = prediction_log_pb2.PredictionLog.FromString(record)
            except DecodeError as error:
                raise invalid_argument(f"Failed to parse warmup record: {record!r} from {file}") from error
            for _ in range(iterations):
                _run(model, request)
            records += 1
            check(records <= MAX_RECORDS, f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}")
    except tf.errors.DataLossError as error:
        text = f"{error.message}. Please verify your warmup data is in TFRecord format."
        raise ServingError(StatusCode.DATA_LOSS, text) from error
    log.info("Finished reading warmup data for model at %s. Number of warmup records read: %d.", file, records)


def _run(model, record):
    kind = record.WhichOneof("log_type")
    if kind == "predict_log":
        request = record.predict_log.request
        inputs = {alias: to_array(alias, proto) for alias, proto in request.inputs.items()}
        inference.predict(model, request.model_spec.signature_name, inputs, request.output_filter)
    elif kind in ("classify_log", "regress_log"):
        request = getattr(record, kind).request
        examples = [example.SerializeToString() for example in request.input.example_list.examples]
        run = inference.classify if kind == "classify_log" else inference.regress
        run(model, request.model_spec.signature_name, examples, 0)
    elif kind:
        raise ServingError(StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
