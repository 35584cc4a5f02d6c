"""The command line: TFS's names, defaults and meanings, for the flags this server knows.

Any other argument is what an unknown one is to TFS: it is printed, and the server goes on without it. Nothing here
imports TensorFlow, so that `--help`, `--version` and mistakes answer at once.
"""

import os
import sys
from importlib import metadata
from types import SimpleNamespace

EXIT_FAILURE = 255  # TFS returns -1 from main

DESCRIPTION = """\
A local stand-in for TensorFlow Serving's tensorflow_model_server: for development, demos and tests
only. It serves SavedModels with TensorFlow from PyPI, on the loopback interface, and never goes into
an image. Requests are never merged into batches, but they queue as batches do. Models and their
versions are read once, at start.
"""

FLAGS = (  # name, default, meaning
    ("port", 8500, "gRPC port"),
    ("rest_api_port", 0, "HTTP/REST port, different from --port; 0: no REST API"),
    ("rest_api_num_threads", 4 * (os.cpu_count() or 1), "REST requests worked on at a time"),
    ("rest_api_timeout_in_ms", 30000, "time for running the model in a REST request"),
    ("model_config_file", "", "text protobuf ModelServerConfig with the models to serve"),
    ("model_config_file_poll_wait_seconds", 0, "accepted; the file is read once"),
    ("model_name", "default", "name of the model, without --model_config_file"),
    ("model_base_path", "", "folder of its versions, without --model_config_file"),
    ("file_system_poll_wait_seconds", 1, "wait between two looks for a first version"),
    ("max_num_load_retries", 5, "further tries after a model failed to load"),
    ("load_retry_interval_micros", 60_000_000, "wait between two such tries"),
    ("enable_batching", False, "queue requests as batches; each runs by itself"),
    ("batching_parameters_file", "", "text protobuf BatchingParameters"),
    ("tensorflow_intra_op_parallelism", 0, "threads inside one operation; 0: automatic"),
    ("tensorflow_inter_op_parallelism", 0, "operations run at a time; 0: automatic"),
    ("per_process_gpu_memory_fraction", 0.0, "share of GPU memory; 0: automatic"),
    ("version", False, "print the version and exit"),
)
USAGE = "usage: tensorflow_model_server\n" + "".join(
    f"\t--{name}={default!r}\t{type(default).__name__}\t{meaning}\n" for name, default, meaning in FLAGS
)


def parse(arguments):
    """The flags as a namespace. Prints and exits for --help, --version and mistakes."""
    values = {name: default for name, default, _ in FLAGS}
    unknown = []
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if argument == "--help":
            print(f"{DESCRIPTION}\n{USAGE}", end="")
            sys.exit(0)
        kind = type(values.get(name))
        if not argument.startswith("--") or name not in values or not (equals or kind is bool):
            unknown.append(argument)
            continue
        try:
            values[name] = _value(kind, text if equals else "true")
        except (KeyError, ValueError):
            sys.stderr.write(f"Couldn't interpret value {text} for flag {name}.\n{USAGE}")
            sys.exit(EXIT_FAILURE)
    if values["version"]:
        library = _tensorflow_version()
        print(f"TensorFlow ModelServer: {library}+local (for development and tests only)")
        print(f"TensorFlow Library: {library}")
        sys.exit(0)
    if unknown:
        print(f"unknown argument: {unknown[0]}\n{USAGE}", end="", flush=True)
    return SimpleNamespace(**values)


def _value(kind, text):
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    return kind(text)


def _tensorflow_version():
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return "none"
