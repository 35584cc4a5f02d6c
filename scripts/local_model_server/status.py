"""The one error type of the server, and what its codes are in gRPC and HTTP.

Codes are named and numbered as gRPC's. The HTTP column is the table TFS uses for its REST API.
"""

import os
import resource
import signal

from local_model_server import log

_CODES = (  # name, number in gRPC and TensorFlow, status in HTTP
    ("OK", 0, 200),
    ("CANCELLED", 1, 499),
    ("UNKNOWN", 2, 500),
    ("INVALID_ARGUMENT", 3, 400),
    ("DEADLINE_EXCEEDED", 4, 504),
    ("NOT_FOUND", 5, 404),
    ("ALREADY_EXISTS", 6, 409),
    ("PERMISSION_DENIED", 7, 403),
    ("RESOURCE_EXHAUSTED", 8, 429),
    ("FAILED_PRECONDITION", 9, 400),
    ("ABORTED", 10, 409),
    ("OUT_OF_RANGE", 11, 400),
    ("UNIMPLEMENTED", 12, 501),
    ("INTERNAL", 13, 500),
    ("UNAVAILABLE", 14, 503),
    ("DATA_LOSS", 15, 500),
    ("UNAUTHENTICATED", 16, 401),
)
_HTTP_STATUS = {name: http for name, _, http in _CODES}
_NAME = {number: name for name, number, _ in _CODES}


class ServingError(Exception):
    """A request or a start-up step failed; `code` is one of the names above."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def http_status(self):
        return _HTTP_STATUS[self.code]

    def __str__(self):
        return f"{self.code}: {self.message}"


def invalid_argument(message):
    return ServingError("INVALID_ARGUMENT", message)


def not_found(message):
    return ServingError("NOT_FOUND", message)


def from_tensorflow(error):
    """The ServingError for a `tf.errors.OpError`."""
    return ServingError(_NAME.get(error.error_code, "UNKNOWN"), error.message)


def die(reason):
    """Ends the process as a crash would, where TFS crashes."""
    log.error("status", reason)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGSEGV)
