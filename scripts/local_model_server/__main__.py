"""The outline: flags, configuration, models, then the two ports.

Reading order: configuration, servables, saved_model, inference; then rest_api with json_*, and grpc_api.

Every refusal to start exits with 255. A server that serves ends only by a signal: SIGTERM and SIGINT end it at once,
along with the requests under way, as they end TFS.
"""

import logging
import os
import signal
import sys

# Python puts the folder of this file first on its path; the folder above belongs there, which has the package.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from local_model_server import configuration  # noqa: E402  (found through the line above)
from local_model_server.errors import ServingError  # noqa: E402

log = logging.getLogger("local_model_server")


def main():
    flags = configuration.parse_flags(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.basicConfig(format="%(asctime)s: %(levelname).1s %(module)s.py] %(message)s")
    log.setLevel(logging.INFO)
    log.info("This is the local stand-in for tensorflow_model_server: for development, demos and tests only")
    try:
        grpc_server = start(flags)
    except (OSError, ServingError) as error:
        print(f"Failed to start server. Error: {error}", flush=True)
        return configuration.EXIT_FAILURE
    grpc_server.wait_for_termination()


def start(flags):
    configs, batching = configuration.models(flags), configuration.batching(flags)

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only: the log is the server's own
    import tensorflow as tf  # takes seconds, so a refused configuration comes first

    tf.get_logger().setLevel("ERROR")

    from local_model_server import grpc_api, rest_api
    from local_model_server.servables import Servables

    servables = Servables(configs, flags, batching)
    grpc_server = grpc_api.start(flags.port, servables)
    if flags.rest_api_port:
        try:
            rest_api.start(flags, servables)
        except OSError as error:  # TFS goes on with gRPC alone, too
            log.error("Failed to start HTTP Server at localhost:%d: %s", flags.rest_api_port, error)
    return grpc_server


sys.exit(main())
