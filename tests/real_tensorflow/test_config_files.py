"""TensorFlow Serving's own protobuf messages read the files that are written for TensorFlow Serving.

The fake model server takes its place and records the files as it got them.
"""

import json
import os

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from tests.harness.case import ServerCase
from tests.harness.constants import FAKE_MODEL_SERVER

# A folder may have this name.
ODD = 'it\'s "a" dürre$r%303 模型\n\tordner'
BATCHING_FIELDS = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
FURTHER_FIELDS = {
    "SAGEMAKER_TFS_ALLOWED_BATCH_SIZES": "4,8",
    "SAGEMAKER_TFS_PAD_VARIABLE_LENGTH_INPUTS": "true",
    "SAGEMAKER_TFS_ENABLE_LARGE_BATCH_SPLITTING": "true",
    "SAGEMAKER_TFS_MAX_EXECUTION_BATCH_SIZE": "4",
}


def batching_parameters():
    """An empty tensorflow.serving.BatchingParameters of session_bundle_config.proto, which is not on PyPI."""
    file = descriptor_pb2.FileDescriptorProto(name="session_bundle_config.proto", package="tensorflow.serving")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name="BatchingParameters")
    kind = {"label": "LABEL_OPTIONAL", "type": "TYPE_MESSAGE", "type_name": ".google.protobuf.Int64Value"}
    for number, name in enumerate((*BATCHING_FIELDS, "max_execution_batch_size"), start=1):
        message.field.add(name=name, number=number, **kind)
    message.field.add(name="allowed_batch_sizes", number=6, label="LABEL_REPEATED", type="TYPE_INT64")
    message.field.add(name="pad_variable_length_inputs", number=7, label="LABEL_OPTIONAL", type="TYPE_BOOL")
    kind["type_name"] = ".google.protobuf.BoolValue"
    message.field.add(name="enable_large_batch_splitting", number=8, **kind)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.BatchingParameters"))()


class ConfigFiles(ServerCase):
    def record(self, model_dir, env=None):
        """What the model server was started with."""
        folder = self.folder()
        env = {"FAKE_TFS_RECORD": str(folder), **(env or {})}
        self.start(model_dir, model_server=FAKE_MODEL_SERVER, env=env).wait_ready()
        return json.loads((folder / "start-0.json").read_text())

    def models_in(self, record):
        """Name, folder and versions of each model."""
        config = text_format.Parse(record["model_config"], model_server_config_pb2.ModelServerConfig())
        self.assertEqual(config.WhichOneof("config"), "model_config_list")
        models = []
        for model in config.model_config_list.config:
            self.assertEqual(model.model_platform, "tensorflow")
            self.assertEqual(model.model_version_policy.WhichOneof("policy_choice"), "specific")
            models.append((model.name, model.base_path, list(model.model_version_policy.specific.versions)))
            # No other field is set.
            fields = {field.name for field, _ in model.ListFields()}
            self.assertEqual(fields, {"name", "base_path", "model_platform", "model_version_policy"})
        return models

    def test_models_with_all_their_versions(self):
        root = self.folder() / ODD
        servo = self.empty_model(root / "export" / "Servo", "1", "0020", "9223372036854775807")
        other = self.empty_model(root / "a.b-c_1", "00000123", "124")
        self.empty_model(root / ".hidden", "1")
        expected = [("Servo", str(servo), [1, 20, 9223372036854775807]), ("a.b-c_1", str(other), [123, 124])]
        self.assertEqual(self.models_in(self.record(root)), expected)

    def test_a_lone_saved_model_gets_a_version_folder(self):
        root, temporary = self.folder() / ODD, self.folder() / ODD
        self.empty_model(root, "net")
        temporary.mkdir()
        ((name, base, versions),) = self.models_in(self.record(root / "net", {"TMPDIR": str(temporary)}))
        self.assertEqual((name, versions), ("net", [1]))
        self.assertTrue(base.startswith(f"{temporary}/"), base)
        self.assertEqual(os.readlink(f"{base}/1"), str(root / "net"))

    def test_no_batching_file_without_batching(self):
        record = self.record(self.empty_model(self.folder() / "model", "1"), {"SAGEMAKER_TFS_MAX_BATCH_SIZE": "5"})
        self.assertIsNone(record["batching_config"])
        self.assertFalse([word for word in record["argv"] if "batching" in word])

    def test_labels_of_versions(self):
        model_dir = self.empty_model(self.folder() / "model", "1", "2")
        record = self.record(model_dir, {"SAGEMAKER_TFS_VERSION_LABELS": "stable=1,a.b-c_1=2"})
        config = text_format.Parse(record["model_config"], model_server_config_pb2.ModelServerConfig())
        (model,) = config.model_config_list.config
        self.assertEqual(dict(model.version_labels), {"stable": 1, "a.b-c_1": 2})

    def test_further_batching_parameters(self):
        env = {"SAGEMAKER_TFS_ENABLE_BATCHING": "true", **FURTHER_FIELDS}
        record = self.record(self.empty_model(self.folder() / "model", "1"), env)
        parameters = text_format.Parse(record["batching_config"], batching_parameters())
        self.assertEqual(list(parameters.allowed_batch_sizes), [4, 8])
        self.assertTrue(parameters.pad_variable_length_inputs)
        self.assertTrue(parameters.enable_large_batch_splitting.value)
        self.assertEqual(parameters.max_execution_batch_size.value, 4)

    def test_batching(self):
        cpus = len(os.sched_getaffinity(0))
        default = {"max_batch_size": 8, "batch_timeout_micros": 1000, "num_batch_threads": cpus}
        values = {name: number for number, name in enumerate(BATCHING_FIELDS, start=2147483640)}
        given = {f"SAGEMAKER_TFS_{name.upper()}": str(value) for name, value in values.items()}
        for env, expected in (
            ({}, {**default, "max_enqueued_batches": cpus}),
            ({"SAGEMAKER_BATCH": "True"}, {**default, "max_enqueued_batches": 100_000_000}),
            (given, values),
        ):
            with self.subTest(env):
                model_dir = self.empty_model(self.folder() / "model", "1")
                record = self.record(model_dir, {"SAGEMAKER_TFS_ENABLE_BATCHING": "True", **env})
                self.assertIn("--enable_batching=true", record["argv"])
                parameters = text_format.Parse(record["batching_config"], batching_parameters())
                self.assertEqual({field.name: value.value for field, value in parameters.ListFields()}, expected)
