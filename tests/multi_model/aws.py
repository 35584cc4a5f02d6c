"""AWS on this machine, for the handler for all models: a store, what it lets in, and where credentials come from.

The store is moto's server, a process. It takes presigned requests without looking at their signatures, so a gate
stands before it that looks, with botocore's own computation.
"""

import datetime
import hmac
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from harness import HOST, free_ports

REGION = "eu-central-1"
START_SECONDS = 60
# Objects a page; S3 itself gives 1,000.
PAGE = 7
# What the gate lets in: access key to secret key and session token.
KEYS = {
    "AKIDLASTING": ("secret/lasting+key", None),
    "ASIATASK": ("secret/task+key", "token/of+the=task"),
    "ASIAROLE": ("secret/role+key", "token/of+the=role"),
}
ENVIRONMENT_KEYS = {"AWS_ACCESS_KEY_ID": "AKIDLASTING", "AWS_SECRET_ACCESS_KEY": KEYS["AKIDLASTING"][0]}


class Store:
    """moto's server."""

    def __init__(self):
        self.port = free_ports(1)
        log, self.log_path = tempfile.mkstemp(prefix="sagemaker-tfs-store-", suffix=".log")
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)],
                env={**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError:
            os.unlink(self.log_path)
            raise
        finally:
            os.close(log)

    def wait_ready(self):
        end = time.monotonic() + START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return self
            if self.process.poll() is not None or time.monotonic() > end:
                with open(self.log_path) as log:
                    raise RuntimeError(f"moto's server does not start:\n{log.read()}")
            time.sleep(0.05)

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=f"http://{HOST}:{self.port}",
            region_name=REGION,
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )

    def stop(self):
        try:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        finally:
            os.unlink(self.log_path)


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        # Who refuses to start breaks its connections.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, address)


class Service:
    """A small HTTP server in threads of this process; `answer` gets its requests."""

    def __init__(self):
        service = self
        #: Method and path, with its query, of each request.
        self.requests = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                service.requests.append((self.command, self.path))
                status, body = service.answer(self)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_GET

            def log_message(self, *_):
                pass

        self.server = Quiet((HOST, 0), Handler)
        self.address = f"http://{HOST}:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def answer(self, request):
        """Status and body."""
        raise NotImplementedError

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Gate(Service):
    """Lets into the store who signed well; others get S3's own errors."""

    def __init__(self, store):
        super().__init__()
        self.store = store
        #: Keys of objects that nobody may read.
        self.forbidden = set()
        #: So many requests are put off first.
        self.busy = 0
        #: The access keys that were used.
        self.visitors = set()

    def answer(self, request):
        if self.busy > 0:
            self.busy -= 1
            return 503, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
        code = self.objection(request)
        if code is None and any(unquote(urlsplit(request.path).path).endswith(key) for key in self.forbidden):
            code = "AccessDenied"
        if code is not None:
            return 403, f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>No.</Message></Error>'.encode()
        connection = http.client.HTTPConnection(HOST, self.store.port, timeout=60)
        try:
            connection.request(request.command, request.path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def objection(self, request):
        """S3's name for what is wrong with the signature, or None."""
        address = f"http://{request.headers['Host']}{request.path}"
        query = parse_qs(urlsplit(address).query, keep_blank_values=True, strict_parsing=True)

        def one(name):
            (value,) = query.get(f"X-Amz-{name}", [""])
            return value

        if one("Algorithm") != "AWS4-HMAC-SHA256" or one("SignedHeaders") != "host":
            return "AuthorizationQueryParametersError"
        key, date, region, service, end = one("Credential").split("/")
        if (date, region, service, end) != (one("Date")[:8], REGION, "s3", "aws4_request"):
            return "AuthorizationQueryParametersError"
        signed = datetime.datetime.strptime(one("Date") + "+0000", "%Y%m%dT%H%M%SZ%z")
        age = (datetime.datetime.now(datetime.timezone.utc) - signed).total_seconds()
        if not -60 <= age <= int(one("Expires")):
            return "RequestExpired"
        if key not in KEYS:
            return "InvalidAccessKeyId"
        secret, token = KEYS[key]
        if one("Security-Token") != (token or ""):
            return "InvalidToken"
        address, _, rest = address.partition("&X-Amz-Signature=")
        if "&" in rest:  # it need not be the last
            address += "&" + rest.partition("&")[2]
        check = AWSRequest(method=request.command, url=address)
        check.context["timestamp"] = one("Date")
        auth = S3SigV4QueryAuth(Credentials(key, secret, token), service, region)
        expected = auth.signature(auth.string_to_sign(check, auth.canonical_request(check)), check)
        if not hmac.compare_digest(expected, one("Signature")):
            return "SignatureDoesNotMatch"
        self.visitors.add(key)
        return None


def credentials(key):
    """As both services of AWS write them."""
    secret, token = KEYS[key]
    fields = {"AccessKeyId": key, "SecretAccessKey": secret, "Token": token, "Expiration": "2100-01-01T00:00:00Z"}
    return json.dumps(fields).encode()


class TaskCredentials(Service):
    """The container credentials endpoint."""

    TOKEN = "Basic of-the-task"

    def answer(self, request):
        if request.headers["Authorization"] != self.TOKEN:
            return 401, b"no token"
        return (200, credentials("ASIATASK")) if request.path == "/v2/credentials?id=1" else (404, b"")


class Metadata(Service):
    """The instance metadata service, version 2."""

    TOKEN = "of-the-session=="
    ROLES = "/latest/meta-data/iam/security-credentials/"

    def __init__(self, role="the-role"):
        super().__init__()
        self.role = role

    def answer(self, request):
        if request.path == "/latest/api/token":
            seconds = request.headers["X-aws-ec2-metadata-token-ttl-seconds"] or "0"
            well = request.command == "PUT" and 1 <= int(seconds) <= 21600
            return (200, self.TOKEN.encode()) if well else (400, b"")
        if request.command != "GET" or request.headers["X-aws-ec2-metadata-token"] != self.TOKEN:
            return 401, b""
        if self.role and request.path == self.ROLES:
            return 200, self.role.encode()
        if self.role and request.path == self.ROLES + self.role:
            return 200, credentials("ASIAROLE")
        return 404, b""


class Garbage(Service):
    """Something that is no store."""

    def answer(self, request):
        return 200, b"<html>welcome</html>"


class Elsewhere(Service):
    """What S3 says to those who ask the wrong region: moved, without a word on where to."""

    def answer(self, request):
        return 301, b"<Error><Code>PermanentRedirect</Code><Message>Use the other endpoint.</Message></Error>"
