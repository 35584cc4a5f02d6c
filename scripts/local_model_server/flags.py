"""The command line: TFS's names, defaults and meanings, for the flags this server knows.

A flag TFS has and this list lacks is refused, as TFS refuses what it does not know: a test that passes
here must not pass because a flag was ignored. Nothing here imports TensorFlow, so that `--help`,
`--version` and mistakes answer at once.
"""

import argparse
import os
import sys
from importlib import metadata

EXIT_FAILURE = 255  # TFS returns -1 from main

DESCRIPTION = """\
A local stand-in for TensorFlow Serving's tensorflow_model_server: for development, demos and tests
only. It serves SavedModels with TensorFlow from PyPI, on the loopback interface, and never goes into
an image."""

EPILOG = """\
Requests are never merged into batches: batching parameters are checked, then not used. Models and
their versions are read once, at start."""


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        _refuse(self, message)


def parse(arguments):
    """The flags as a namespace. Prints and exits for --help, --version and mistakes."""
    parser = _parser()
    flags, unknown = parser.parse_known_args(arguments)
    if unknown:
        _refuse(parser, f"unknown argument: {unknown[0]}")
    if flags.version:
        library = _tensorflow_version()
        print(f"TensorFlow ModelServer: {library}+local (for development and tests only)")
        print(f"TensorFlow Library: {library}")
        sys.exit(0)
    return flags


def _parser():
    parser = _Parser(
        prog="tensorflow_model_server",
        description=DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(name, kind, default, text):
        more = {"nargs": "?", "const": True} if kind is _boolean else {}
        parser.add_argument(
            f"--{name}",
            type=kind,
            default=default,
            metavar=_METAVARS[kind],
            help=f"{text} (default: {default!r})",
            **more,
        )

    add("port", int, 8500, "gRPC port")
    add("rest_api_port", int, 0, "HTTP/REST port, different from --port; 0: no REST API")
    add("rest_api_num_threads", int, 4 * (os.cpu_count() or 1), "REST requests worked on at a time")
    add("rest_api_timeout_in_ms", int, 30000, "time for running the model in a REST request")
    add("model_config_file", str, "", "text protobuf ModelServerConfig with the models to serve")
    add("model_config_file_poll_wait_seconds", int, 0, "accepted; the file is read once")
    add("model_name", str, "default", "name of the model, without --model_config_file")
    add("model_base_path", str, "", "folder of its versions, without --model_config_file")
    add("file_system_poll_wait_seconds", int, 1, "wait between two looks for a first version")
    add("max_num_load_retries", int, 5, "further tries after a model failed to load")
    add("load_retry_interval_micros", int, 60_000_000, "wait between two such tries")
    add("enable_batching", _boolean, False, "accepted; requests are served one by one")
    add("batching_parameters_file", str, "", "text protobuf BatchingParameters; checked only")
    add("tensorflow_intra_op_parallelism", int, 0, "threads inside one operation; 0: automatic")
    add("tensorflow_inter_op_parallelism", int, 0, "operations run at a time; 0: automatic")
    add("per_process_gpu_memory_fraction", float, 0.0, "share of GPU memory; 0: automatic")
    add("version", _boolean, False, "print the version and exit")
    return parser


def _boolean(text):
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"neither true nor false: {text!r}") from None


_METAVARS = {int: "NUMBER", float: "NUMBER", str: "TEXT", _boolean: "true|false"}


def _refuse(parser, message):
    sys.stderr.write(f"{message}\n{parser.format_usage()}")
    sys.exit(EXIT_FAILURE)


def _tensorflow_version():
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return "none"
