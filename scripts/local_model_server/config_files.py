"""The two configuration files: ModelServerConfig and BatchingParameters, both text protobuf.

A file that cannot be read or understood, or that TFS would refuse, raises ServingError; nothing here
looks at the models themselves.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from local_model_server import log
from local_model_server.batching import Batching
from local_model_server.status import ServingError, invalid_argument


def models(flags):
    """The ModelConfig messages to serve, from --model_config_file or the single-model flags."""
    config = model_server_config_pb2.ModelServerConfig()
    if flags.model_config_file:
        _read(flags.model_config_file, config)
    elif flags.model_base_path:
        log.info(
            "config_files",
            "Building single TensorFlow model file config:  "
            f"model_name: {flags.model_name} model_base_path: {flags.model_base_path}",
        )
        config.model_config_list.config.add(
            name=flags.model_name, base_path=flags.model_base_path, model_platform="tensorflow"
        )
    else:
        raise invalid_argument(
            "Both server_options.model_base_path and server_options.model_config_file are empty!"
        )
    if config.HasField("custom_model_config"):
        raise invalid_argument("ModelServer does not yet support custom model config.")
    result = list(config.model_config_list.config)
    _check_models(result)
    return result


def _check_models(configs):
    seen = set()
    for model in configs:
        if model.model_platform != "tensorflow":
            raise invalid_argument(
                f"model {model.name}: model_platform must be 'tensorflow', not '{model.model_platform}'"
            )
        if not model.base_path.startswith("/"):
            raise invalid_argument(
                f"Expected model {model.name} to have an absolute path or URI; "
                f"got base_path()={model.base_path}"
            )
        if model.name in seen:
            raise invalid_argument(f"Illegal to list model {model.name} multiple times in config list")
        seen.add(model.name)


def batching(flags):
    """A Batching of what --batching_parameters_file says, by TFS's rules; None without batching."""
    if flags.batching_parameters_file and not flags.enable_batching:
        raise invalid_argument(
            "server_options.batching_parameters_file is set without setting "
            "server_options.enable_batching to true."
        )
    if not flags.enable_batching:
        return None
    parameters = _batching_parameters_class()()
    if flags.batching_parameters_file:
        _read(flags.batching_parameters_file, parameters)
    for name, least, rule in (
        ("max_batch_size", 1, "positive"),
        ("num_batch_threads", 1, "positive"),
        ("batch_timeout_micros", 0, "non-negative"),
        ("max_enqueued_batches", 0, "non-negative"),
    ):
        value = getattr(parameters, name).value
        if parameters.HasField(name) and value < least:
            raise invalid_argument(f"{name} must be {rule}; was {value}")
    sizes = list(parameters.allowed_batch_sizes)
    if sizes != sorted(set(sizes)):
        raise invalid_argument("allowed_batch_sizes entries must be monotonically increasing")
    if sizes and sizes[-1] != parameters.max_batch_size.value:
        raise invalid_argument(
            "Last entry in allowed_batch_sizes must match max_batch_size; "
            f"last entry was {sizes[-1]}; expected {parameters.max_batch_size.value}"
        )
    return Batching(parameters)


def _read(path, message):
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise ServingError("NOT_FOUND", f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from error
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from error


def _batching_parameters_class():
    """BatchingParameters as a message class: tensorflow-serving-api does not ship its definition.

    Only names and types matter for the text form; the field numbers are arbitrary.
    """
    kinds = descriptor_pb2.FieldDescriptorProto
    fields = {
        "max_batch_size": "Int64Value",
        "batch_timeout_micros": "Int64Value",
        "max_enqueued_batches": "Int64Value",
        "num_batch_threads": "Int64Value",
        "max_execution_batch_size": "Int64Value",
        "thread_pool_name": "StringValue",
        "enable_large_batch_splitting": "BoolValue",
        "allowed_batch_sizes": kinds.TYPE_INT64,
        "pad_variable_length_inputs": kinds.TYPE_BOOL,
    }
    wrappers = wrappers_pb2.DESCRIPTOR
    file = descriptor_pb2.FileDescriptorProto(
        name="batching_parameters.proto", package="local", syntax="proto3", dependency=[wrappers.name]
    )
    message = file.message_type.add(name="BatchingParameters")
    for number, (name, kind) in enumerate(fields.items(), start=1):
        label = kinds.LABEL_REPEATED if name == "allowed_batch_sizes" else kinds.LABEL_OPTIONAL
        field = message.field.add(name=name, number=number, label=label, type=kinds.TYPE_MESSAGE)
        if isinstance(kind, str):
            field.type_name = f".google.protobuf.{kind}"
        else:
            field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("local.BatchingParameters"))
