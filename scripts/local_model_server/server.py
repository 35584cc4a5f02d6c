"""The outline of the server: flags, configuration, models, then the two ports.

Exit code 255 for every refusal to start. Once serving it ends only by a signal, and SIGTERM and SIGINT
act as the system's default does: at once, with the requests under way. That is how TFS behaves.
"""

import importlib.util
import os
import signal
import sys

from local_model_server import flags as command_line
from local_model_server import log
from local_model_server.status import ServingError

PACKAGES = ("tensorflow", "tensorflow_serving", "grpc")


def main(arguments):
    flags = command_line.parse(arguments)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    log.info(
        "server",
        "This is the local stand-in for tensorflow_model_server: for development, demos "
        "and tests only, never for an image.",
    )
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"tensorflow_model_server (local stand-in): {sys.executable} lacks {', '.join(missing)}; "
            "run ./scripts/demo.sh or ./scripts/test.sh, which make an environment with TensorFlow.\n"
        )
        return command_line.EXIT_FAILURE
    try:
        grpc_server = _start(flags)
    except ServingError as error:
        # On stdout, where TFS prints it; the lines before it on stderr name the cause as well.
        name = error.code.replace("_", " ").capitalize()
        print(f"Failed to start server. Error: {name}: {error.message}", flush=True)
        return command_line.EXIT_FAILURE
    grpc_server.wait_for_termination()
    return 0


def _start(flags):
    from local_model_server import config_files  # these import protobuf and TensorFlow: slow

    configs = config_files.models(flags)
    batching = config_files.batching(flags)

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only: the log is the server's own
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")

    from local_model_server import grpc_api, http_server, rest_api
    from local_model_server.servables import Servables

    servables = Servables.load(configs, flags, batching)
    grpc_server = grpc_api.start(flags.port, servables)
    if flags.rest_api_port == 0:
        return grpc_server
    address = f"localhost:{flags.rest_api_port}"
    if flags.rest_api_port == flags.port:
        log.error(
            "server",
            "server_options.http_port cannot be same as grpc_port. Please use a different "
            "port for HTTP/REST API. Skipped exporting HTTP/REST API.",
        )
        return grpc_server
    api = rest_api.RestApi(servables, flags.rest_api_timeout_in_ms)
    try:
        http_server.start(flags.rest_api_port, api.answer, flags.rest_api_num_threads)
    except OSError as error:  # TFS goes on with gRPC alone, too
        log.error("server", f"Failed to start HTTP Server at {address}: {error}")
    else:
        log.info("server", f"Exporting HTTP/REST API at:{address} ...")
    return grpc_server
