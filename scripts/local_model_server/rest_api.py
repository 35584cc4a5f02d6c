"""The REST API on the loopback interface: HTTP/1.1, which path means what, and the answer to each request.

Paths are matched as TFS does, without regard to case and in full: a query string is a part of the path. What no client
of sagemaker-tfs sends is treated as Python's HTTP server treats it, not as the libevent inside TFS does.
"""

import http.server
import logging
import re
import socketserver
import sys
import threading
from functools import partial
from urllib.parse import unquote

import tensorflow as tf
from google.protobuf import json_format
from grpc import StatusCode
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from local_model_server import inference, json_requests, json_responses
from local_model_server.errors import HOST, ServingError, check, invalid_argument, not_found
from local_model_server.json_text import INDENT, encode, parse, quote

_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata|:predict|:classify|:regress)?", re.IGNORECASE)

log = logging.getLogger(__name__)


def start(flags, servables):
    """Listens, then serves in the background. OSError if the port cannot be had."""
    server = _Server((HOST, flags.rest_api_port), _Handler)
    server.api = RestApi(servables, flags.rest_api_timeout_in_ms)
    server.slots = threading.Semaphore(flags.rest_api_num_threads)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log.info("Exporting HTTP/REST API at:localhost:%d ...", flags.rest_api_port)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024  # many clients may connect at once in a test

    def handle_error(self, *arguments):
        if not isinstance(sys.exc_info()[1], OSError):  # otherwise the client went away
            super().handle_error(*arguments)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept alive
    disable_nagle_algorithm = True

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
        match = _PATH.fullmatch(path)
        call = (match[4] or "").lower() if match else None
        is_run = call in (":predict", ":classify", ":regress")
        check(match and method == ("POST" if is_run else "GET"), f"Malformed request: {method} {path}")
        name, version, label = unquote(match[1]), match[2] and int(match[2]), match[3] and unquote(match[3])
        if is_run:
            return self._run(call, partial(self._servables.find, name, version, label), parse(body))
        if label:
            version = self._servables.find(name, label=label).version
        return self._metadata(name, version) if call else self._status(name, version)

    def _run(self, call, find, document):
        signature = json_requests.signature_name(document)
        if call == ":predict":
            return self._predict(find().model, signature, document)
        examples = json_requests.serialized_examples(document)
        model = find().model
        if call == ":classify":
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
        spec = model_pb2.ModelSpec(name=servable.name)
        spec.version.value = servable.version
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.model.signatures)
        # Two printed messages put together by hand, as in TFS: this is its layout.
        return (
            f'{{\n"model_spec":{_protobuf_json(spec)},\n'
            f'"metadata": {{"signature_def": {_protobuf_json(signatures)}}}\n}}\n'
        )


def _protobuf_json(message):
    options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
    return json_format.MessageToJson(message, indent=1, **options) + "\n"
