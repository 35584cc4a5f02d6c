"""The one error type of the server, and what all its parts share."""

from grpc import StatusCode

HOST = "127.0.0.1"  # of both ports, and never another: there is no protection of any kind here

_HTTP_STATUS = {  # of the codes that are not 500
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.NOT_FOUND: 404,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}
_BY_NUMBER = {code.value[0]: code for code in StatusCode}
_TYPE_NAMES = {"float32": "float", "float64": "double", "float16": "half", "object": "string"}


class ServingError(Exception):
    """A request or a step of the start failed."""

    def __init__(self, code, message):
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.http_status = _HTTP_STATUS.get(code, 500)


def invalid_argument(message):
    return ServingError(StatusCode.INVALID_ARGUMENT, message)


def check(condition, message):
    """Raises INVALID_ARGUMENT unless the condition holds."""
    if not condition:
        raise invalid_argument(message)


def not_found(message):
    return ServingError(StatusCode.NOT_FOUND, message)


def from_tensorflow(error):
    """The ServingError for a `tf.errors.OpError`."""
    return ServingError(_BY_NUMBER[error.error_code], error.message)


def type_name(dtype):
    """A type of TensorFlow or numpy as TFS's error texts name it."""
    return _TYPE_NAMES.get(dtype.name, dtype.name)
