"""What is configured: TFS's flags that this server knows, ModelServerConfig and BatchingParameters."""

import argparse
import json
import os
import pathlib
import re

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from local_model_server import __doc__ as description
from local_model_server.errors import check, invalid_argument

EXIT_FAILURE = 255  # TFS returns -1 from main
FLAGS = (  # name, default, meaning
    ("port", 8500, "gRPC port"),
    ("rest_api_port", 0, "HTTP/REST port; 0: no REST API"),
    ("rest_api_num_threads", 4 * (os.cpu_count() or 1), "REST requests worked on at a time"),
    ("rest_api_timeout_in_ms", 30000, "time for running the model in a REST request"),
    ("model_config_file", "", "text protobuf ModelServerConfig with the models to serve"),
    ("max_num_load_retries", 5, "accepted; a model is loaded once"),
    ("file_system_poll_wait_seconds", 1, "accepted; a model is looked for once"),
    ("allow_version_labels_for_unavailable_models", False, "accepted; they are always allowed"),
    ("num_request_iterations_for_warmup", 1, "how often each request of a warm-up file is run"),
    ("xla_cpu_compilation_enabled", False, "accepted, without effect"),
    ("enable_batching", False, "queue requests as batches"),
    ("batching_parameters_file", "", "text protobuf BatchingParameters"),
    ("tensorflow_intra_op_parallelism", 0, "threads inside one operation; 0: automatic"),
    ("tensorflow_inter_op_parallelism", 0, "operations run at a time; 0: automatic"),
    ("per_process_gpu_memory_fraction", 0.0, "share of GPU memory; 0: automatic"),
)
_BATCHING_DEFAULTS = {
    "max_batch_size": 1000,
    "num_batch_threads": os.cpu_count() or 1,
    "batch_timeout_micros": 0,
    "max_enqueued_batches": 10,
}
# tensorflow-serving-api does not ship BatchingParameters. All its fields that count here wrap a whole number.
_BATCHING_FIELD = re.compile(rf"\s*({'|'.join(_BATCHING_DEFAULTS)})\s*\{{\s*value\s*:\s*(\d+)\s*\}}\s*")

# Accepted, without effect: each request runs by itself.
_OTHER_FIELD = re.compile(
    r"\s*(allowed_batch_sizes\s*:\s*\d+|pad_variable_length_inputs\s*:\s*(true|false)"
    r"|enable_large_batch_splitting\s*\{\s*value\s*:\s*(true|false)\s*\}"
    r"|max_execution_batch_size\s*\{\s*value\s*:\s*\d+\s*\})\s*"
)


def parse_flags(arguments):
    """The flags as a namespace; an unknown argument is only printed, as in TFS. Exits for --help and mistakes."""
    parser = argparse.ArgumentParser("tensorflow_model_server", description=description, allow_abbrev=False)
    parser.error = lambda message: parser.exit(EXIT_FAILURE, f"{message}\n{parser.format_usage()}")
    parser.add_argument("--version", action="version", version="TensorFlow ModelServer: 2.19.0+local")
    for name, default, meaning in FLAGS:
        kind = json.loads if default is False else type(default)  # bool("false") is true
        parser.add_argument(f"--{name}", default=default, type=kind, help=f"{meaning} (default: {default!r})")
    flags, unknown = parser.parse_known_args(arguments)
    if unknown:
        print(f"unknown argument: {unknown[0]}\n{parser.format_usage()}", end="", flush=True)
    return flags


def models(flags):
    """The ModelConfig messages to serve."""
    path = flags.model_config_file
    check(path, "server_options.model_config_file is empty!")
    config = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(pathlib.Path(path).read_text(encoding="utf-8"), config)
    except text_format.ParseError as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from error
    for model in config.model_config_list.config:
        text = f"model {model.name}: expected model_platform 'tensorflow' and an absolute base_path, got {model}"
        check(model.model_platform == "tensorflow" and model.base_path.startswith("/"), text)
    return config.model_config_list.config


def batching(flags):
    """The parameters of batching by name; None without batching."""
    if not flags.enable_batching:
        return None
    path = flags.batching_parameters_file
    text = pathlib.Path(path).read_text(encoding="utf-8") if path else ""
    check(not _OTHER_FIELD.sub("", _BATCHING_FIELD.sub("", text)), f"Invalid protobuf file: '{path}'")
    return _BATCHING_DEFAULTS | {name: int(value) for name, value in _BATCHING_FIELD.findall(text)}
