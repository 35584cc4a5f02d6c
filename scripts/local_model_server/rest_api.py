"""The REST API: which path means what, and the answer to each request as status, type and bytes.

Paths are TFS's, matched without regard to case and in full, query string and all: with one, a call
is malformed, and a status request asks for a model of an odd name.
The transport is http_server's business.
"""

import re
from urllib.parse import unquote

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from local_model_server import (
    inference,
    json_examples,
    json_requests,
    json_responses,
    json_text,
    json_writer,
    log,
)
from local_model_server.http_server import Answer, page
from local_model_server.status import ServingError, invalid_argument

_MODEL = r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_RUN = re.compile(rf"{_MODEL}:(?P<method>predict|classify|regress)", re.IGNORECASE)
_STATUS = re.compile(rf"{_MODEL}(?P<metadata>/metadata)?", re.IGNORECASE)
_NO_MODEL = re.compile(r"/v1/models(?:/versions/\d+|/labels/[^/:]+)?(?:/metadata)?", re.IGNORECASE)
_API = re.compile(r"/v1/.*", re.IGNORECASE)
# What libevent takes for a URI; of an absolute one TFS sees no more than of any other.
_CHARACTER = r"(?:[\w.~!$&'()*+,;=:@/-]|%[0-9a-f]{2})"
_URI = re.compile(
    rf"(?:[a-z][a-z0-9+.-]*:(?=//))?(?://[^/?#]*)?(?P<path>{_CHARACTER}*)"
    rf"(?P<rest>(?:\?(?:{_CHARACTER}|\?)*)?(?:\#(?:{_CHARACTER}|\?)*)?)",
    re.IGNORECASE | re.ASCII,
)
_MAX_VERSION = 2**63 - 1

_JSON = "application/json"


class RestApi:
    def __init__(self, servables, timeout_ms):
        self._servables = servables
        self._timeout_ms = timeout_ms

    def answer(self, method, target, body):
        """The Answer to a request; never raises."""
        parts = _URI.fullmatch(target)
        if not parts:
            return page(400)
        target = parts["path"] + parts["rest"]
        if not _API.fullmatch(target):
            return page(404)
        try:
            text = self._process(method, target, body)
        except ServingError as error:
            return _error(error)
        except Exception as error:  # a defect of this server must not look like a lost connection
            log.error("rest_api", f"{method} {target}: {type(error).__name__}: {error}")
            return _error(ServingError("INTERNAL", f"{type(error).__name__}: {error}"))
        return Answer(200, _JSON, json_text.encode(text))

    def _process(self, method, target, body):
        if method == "POST" and (match := _RUN.fullmatch(target)):
            return self._run(match["method"].lower(), _spec(match), json_text.parse(body))
        if method == "GET" and (match := _STATUS.fullmatch(target)):
            return self._metadata(_spec(match)) if match["metadata"] else self._status(_spec(match))
        if method == "GET" and _NO_MODEL.fullmatch(target):
            raise invalid_argument("Missing model name in request.")
        raise invalid_argument(f"Malformed request: {method} {target}")

    def _run(self, method, spec, document):
        signature = json_requests.signature_name(document)
        if method == "predict":
            return self._predict(spec, signature, document)
        examples = json_examples.example_input(document)
        model = self._servables.find(*spec).model
        if method == "classify":
            return json_responses.classifications(
                inference.classify(model, signature, examples, self._timeout_ms)
            )
        return json_responses.regressions(inference.regress(model, signature, examples, self._timeout_ms))

    def _predict(self, spec, signature, document):
        model = self._servables.find(*spec).model
        name = signature or inference.DEFAULT_SIGNATURE
        if name not in model.signatures:
            raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
        dtypes = {alias: info.dtype for alias, info in sorted(model.signatures[name].inputs.items())}
        inputs, rows = json_requests.predict_inputs(document, dtypes)
        outputs = inference.predict(model, signature, inputs, timeout_ms=self._timeout_ms)
        return json_responses.predict_rows(outputs) if rows else json_responses.predict_columns(outputs)

    def _status(self, spec):
        response = get_model_status_pb2.GetModelStatusResponse()
        self._servables.fill_status(response, *spec)
        return _protobuf_json(response)

    def _metadata(self, spec):
        servable = self._servables.find(*spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in servable.model.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        # Two printed messages put together by hand, as in TFS: this is its layout.
        return (
            f'{{\n"model_spec":{_protobuf_json(response.model_spec)},\n'
            f'"metadata": {{"signature_def": {_protobuf_json(signatures)}}}\n}}\n'
        )


def _spec(match):
    """(name, version, label) of a path."""
    version = match["version"]
    if version is not None:
        if int(version) > _MAX_VERSION:
            raise invalid_argument(f"Failed to convert version: {version} to numeric.")
        version = int(version)
    label = match["label"]
    return unquote(match["model"]), version, label and unquote(label)


def _protobuf_json(message):
    text = json_format.MessageToJson(
        message, indent=1, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return text + "\n"


def _error(error):
    return Answer(error.http_status, _JSON, json_text.encode(json_writer.error_body(error.message)))
