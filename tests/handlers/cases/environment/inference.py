"""Reads the environment, at import and in a call."""

import json
import os

GRPC_PORTS = os.environ["TFS_GRPC_PORTS"].split(",")
REST_PORTS = os.environ["TFS_REST_PORTS"].split(",")
NAMES = ["TFS_DEFAULT_MODEL_NAME", "OMP_NUM_THREADS", "SAGEMAKER_TFS_INSTANCE_COUNT", "A_SETTING"]


def handler(data, context):
    assert context.grpc_port in GRPC_PORTS and context.rest_uri.split("/")[2].split(":")[1] in REST_PORTS
    assert (os.environ["TFS_GRPC_PORT"], os.environ["TFS_REST_PORT"]) == (GRPC_PORTS[0], REST_PORTS[0])
    seen = {name: os.getenv(name) for name in NAMES}
    return json.dumps({**seen, "grpc": GRPC_PORTS, "rest": REST_PORTS}), "application/json"
