"""The REST API on the loopback interface: HTTP/1.1, which path means what, and the answer to each request.

What no client of sagemaker-tfs sends is treated as Python's HTTP server treats it, not as the libevent inside TFS does.
Paths are TFS's, matched without regard to case and in full, query string and all: with one, a call is malformed, and a
status request asks for a model of an odd name.
"""

import http.server
import logging
import re
import socketserver
import threading
from urllib.parse import unquote

import tensorflow as tf
from google.protobuf import json_format
from grpc import StatusCode
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from local_model_server import inference, json_requests, json_responses
from local_model_server.errors import HOST, ServingError, check, invalid_argument, not_found
from local_model_server.json_text import INDENT, encode, parse, quote

_MODEL = r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>\d+))?"
_RUN = re.compile(rf"{_MODEL}:(?P<method>predict|classify|regress)", re.IGNORECASE)
_STATUS = re.compile(rf"{_MODEL}(?P<metadata>/metadata)?", re.IGNORECASE)

log = logging.getLogger(__name__)


def start(flags, servables):
    """Listens, then serves in the background. OSError if the port cannot be had."""
    server = _Server((HOST, flags.rest_api_port), _Handler)
    server.api = RestApi(servables, flags.rest_api_timeout_in_ms)
    server.slots = threading.Semaphore(max(flags.rest_api_num_threads, 1))
    threading.Thread(target=server.serve_forever, daemon=True).start()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024  # many clients may connect at once in a test


class _Handler(http.server.BaseHTTPRequestHandler):
    """A connection, kept alive."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass  # the client went away

    def do_POST(self):
        try:
            body = self._read_body()
        except ValueError:
            return self.send_error(400)
        if not self.path.lower().startswith("/v1/"):
            return self.send_error(404)
        with self.server.slots:
            status, answer = self.server.api.answer(self.command, self.path, body)
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST

    def _read_body(self):
        if "Transfer-Encoding" not in self.headers:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def log_message(self, *_):
        pass


class RestApi:
    def __init__(self, servables, timeout_ms):
        self._servables = servables
        self._timeout_ms = timeout_ms

    def answer(self, method, path, body):
        """(status, JSON in bytes) for a request; never raises."""
        try:
            return 200, encode(self._process(method, path, body))
        except ServingError as error:
            failure = error
        except RecursionError:
            failure = invalid_argument("JSON nested too deep for the local stand-in")
        except Exception as error:  # a defect of this server must not look like a lost connection
            log.exception("%s %s", method, path)
            failure = ServingError(StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        return failure.http_status, encode(f'{{\n{INDENT}"error": {quote(failure.message)}\n}}')

    def _process(self, method, path, body):
        if method == "POST" and (match := _RUN.fullmatch(path)):
            return self._run(match["method"].lower(), _spec(match), parse(body))
        if method == "GET" and (match := _STATUS.fullmatch(path)):
            return self._metadata(*_spec(match)) if match["metadata"] else self._status(*_spec(match))
        raise invalid_argument(f"Malformed request: {method} {path}")

    def _run(self, method, spec, document):
        signature = json_requests.signature_name(document)
        if method == "predict":
            return self._predict(self._servables.find(*spec).model, signature, document)
        examples = json_requests.serialized_examples(document)
        model = self._servables.find(*spec).model
        if method == "classify":
            return json_responses.classifications(*inference.classify(model, signature, examples, self._timeout_ms))
        return json_responses.regressions(inference.regress(model, signature, examples, self._timeout_ms))

    def _predict(self, model, signature, document):
        name = signature or inference.DEFAULT_SIGNATURE
        check(name in model.signatures, f'Serving signature name: "{name}" not found in signature def')
        infos = sorted(model.signatures[name].inputs.items())
        dtypes = {alias: tf.dtypes.as_dtype(info.dtype) for alias, info in infos}
        inputs, rows = json_requests.predict_inputs(document, dtypes)
        outputs = inference.predict(model, signature, inputs, timeout_ms=self._timeout_ms)
        return json_responses.predict_rows(outputs) if rows else json_responses.predict_columns(outputs)

    def _status(self, name, version):
        servables = self._servables.versions(name, version)
        if not servables:
            which = "any versions" if version is None else f"version {version}"
            raise not_found(f"Could not find {which} of model {name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for servable in servables:
            entry = response.model_version_status.add(version=servable.version, state=servable.state)
            entry.status.SetInParent()  # there, though all its fields may be the defaults
            if servable.error:
                entry.status.error_code = servable.error.code.name
                entry.status.error_message = servable.error.message
        return _protobuf_json(response)

    def _metadata(self, name, version):
        servable = self._servables.find(name, version)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.model.signatures)
        # Two printed messages put together by hand, as in TFS: this is its layout.
        return (
            f'{{\n"model_spec":{_protobuf_json(response.model_spec)},\n'
            f'"metadata": {{"signature_def": {_protobuf_json(signatures)}}}\n}}\n'
        )


def _spec(match):
    """(name, version) of a path."""
    return unquote(match["model"]), match["version"] and int(match["version"])


def _protobuf_json(message):
    options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
    return json_format.MessageToJson(message, indent=1, **options) + "\n"
