"""AWS on this machine: a store that checks signatures, and the services that hand out credentials.

The store is moto's. It takes presigned requests without a look at their signatures, so a gate in front of it checks
them, with botocore's own computation.
"""

import datetime
import json
import logging
import os
import re
import threading

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.server import create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from tests.harness.constants import HOST

REGION = "eu-central-1"
# Secret key and session token of each access key that the gate knows.
KEYS = {
    "AKIDLASTING": ("secret/lasting+key", None),
    "ASIATASK": ("secret/task+key", "token/of+the=task"),
    "ASIAROLE": ("secret/role+key", "token/of+the=role"),
}
CREDENTIALS_PATH = "/v2/credentials?id=1"
TASK_TOKEN = "Basic of-the-task"
SESSION_TOKEN = "of-the-session=="
ROLES = "/latest/meta-data/iam/security-credentials/"
# An object whose key ends like this may not be read.
FORBIDDEN = "/secret.py"
# Objects on a page of a list; S3 itself puts 1,000 there.
PAGE = 7
os.environ["MOTO_S3_DEFAULT_MAX_KEYS"] = str(PAGE)

logging.getLogger("werkzeug").setLevel(logging.ERROR)


class Service:
    """A WSGI application on a port of its own, in threads of this process."""

    def __init__(self, application):
        self.application = application
        # Path and query of each request, as they came.
        self.paths = []
        self.server = make_server(HOST, 0, self, threaded=True)
        self.address = f"http://{HOST}:{self.server.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def __call__(self, environ, start_response):
        self.paths.append(environ["REQUEST_URI"])
        return self.application(environ, start_response)

    def stop(self):
        self.server.shutdown()
        self.thread.join()


def error(status, code):
    """An error in the form of S3's."""
    text = f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>No.</Message></Error>'
    return Response(text, status, content_type="application/xml")


class Gate:
    """Passes well-signed requests on to the store; others get S3's own errors."""

    def __init__(self):
        self.application = create_backend_app("s3")
        # The store itself, into which tests put objects without a request.
        self.store = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
        self.store.reset()
        # This many requests are put off.
        self.busy = 0
        # The access keys of the requests that were let in.
        self.visitors = set()

    @Request.application
    def __call__(self, request):
        if self.busy > 0:
            self.busy -= 1
            return error(503, "SlowDown")
        code = self.objection(request)
        if code is None and request.path.endswith(FORBIDDEN):
            code = "AccessDenied"
        return error(403, code) if code else self.application

    def objection(self, request):
        """S3's name for what is wrong with the signature, or None."""
        given = {name.removeprefix("X-Amz-"): value for name, value in request.args.items()}
        date, (key, *scope) = given.get("Date", ""), given.get("Credential", "").split("/")
        expected = ["AWS4-HMAC-SHA256", "host", date[:8], REGION, "s3", "aws4_request"]
        is_repeated = any(len(values) > 1 for _, values in request.args.lists())
        if is_repeated or [given.get("Algorithm"), given.get("SignedHeaders"), *scope] != expected:
            return "AuthorizationQueryParametersError"
        signed = datetime.datetime.strptime(f"{date}+0000", "%Y%m%dT%H%M%SZ%z")
        age = (datetime.datetime.now(datetime.timezone.utc) - signed).total_seconds()
        if not -60 <= age <= int(given.get("Expires", "0")):
            return "RequestExpired"
        if key not in KEYS:
            return "InvalidAccessKeyId"
        secret, token = KEYS[key]
        if given.get("Security-Token") != token:
            return "InvalidToken"
        target = re.sub("&X-Amz-Signature=[^&]*", "", request.environ["REQUEST_URI"])
        check = AWSRequest(method=request.method, url=f"http://{request.headers['Host']}{target}")
        check.context["timestamp"] = date
        auth = S3SigV4QueryAuth(Credentials(key, secret, token), "s3", REGION)
        signature = auth.signature(auth.string_to_sign(check, auth.canonical_request(check)), check)
        if signature != given.get("Signature"):
            return "SignatureDoesNotMatch"
        self.visitors.add(key)
        return None


def credentials(key):
    """Credentials in the form of both services of AWS."""
    secret, token = KEYS[key]
    fields = {"AccessKeyId": key, "SecretAccessKey": secret, "Token": token, "Expiration": "2100-01-01T00:00:00Z"}
    return Response(json.dumps(fields), content_type="application/json")


@Request.application
def task_credentials(request):
    """The container credentials endpoint."""
    if request.headers.get("Authorization") != TASK_TOKEN:
        return Response("no token", 401)
    return credentials("ASIATASK") if request.environ["REQUEST_URI"] == CREDENTIALS_PATH else Response(status=404)


def metadata(role):
    """The instance metadata service, version 2, of an instance with this role or None."""

    @Request.application
    def answer(request):
        if request.path == "/latest/api/token":
            seconds = int(request.headers.get("X-aws-ec2-metadata-token-ttl-seconds", 0))
            is_right = request.method == "PUT" and 1 <= seconds <= 21600
            return Response(SESSION_TOKEN) if is_right else Response(status=400)
        if request.method != "GET" or request.headers.get("X-aws-ec2-metadata-token") != SESSION_TOKEN:
            return Response(status=401)
        if role and request.path == ROLES:
            return Response(role)
        return credentials("ASIAROLE") if role and request.path == ROLES + role else Response(status=404)

    return answer
