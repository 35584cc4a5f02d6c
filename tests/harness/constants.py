"""Paths of what is tested, and the parts that requests and answers of several suites share."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# `cargo build --bins --example fake_model_server` makes these two.
SERVER = Path(os.environ.get("SAGEMAKER_TFS_TEST_SERVER", ROOT / "target/debug/sagemaker-tfs"))
FAKE_MODEL_SERVER = SERVER.parent / "examples" / "fake_model_server"
# The stand-in for TensorFlow Serving, with real TensorFlow, and the models that scripts/make_models.py makes for it.
STAND_IN = ROOT / "scripts" / "tensorflow_model_server"
MODELS = Path(os.environ.get("SAGEMAKER_TFS_TEST_MODELS", ROOT / ".models"))

HOST = "127.0.0.1"
JSON = "application/json"
JSON_LINES = "application/jsonlines"
CSV = "text/csv"
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"

# The model half_plus_three computes x / 2 + 3.
INSTANCES = '{"instances": [1.0, 2.0, 5.0]}'
# The answer of TensorFlow Serving to these instances, to the byte.
PREDICTIONS = '{\n    "predictions": [3.5, 4.0, 5.5\n    ]\n}'
# Its answer to the same numbers as a single instance that is a list.
ROW = '{\n    "predictions": [[3.5, 4.0, 5.5]\n    ]\n}'
