"""The files written for TensorFlow Serving are what its own protobuf messages say.

The fake model server takes the place of TensorFlow Serving and records the files as it got them.
"""

import json
import os
import unittest

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from harness import FAKE_MODEL_SERVER, Case

# A folder may be named like this.
ODD = "it's \"a\" dürre\\r\\303 模型\n\tordner"


def batching_parameters():
    """tensorflow.serving.BatchingParameters, which is not on PyPI: from session_bundle_config.proto."""
    wrapped = {
        "max_batch_size": 1,
        "batch_timeout_micros": 2,
        "max_enqueued_batches": 3,
        "num_batch_threads": 4,
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="session_bundle_config.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    message = file.message_type.add(name="BatchingParameters")
    for name, number in wrapped.items():
        message.field.add(
            name=name,
            number=number,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
            type_name=".google.protobuf.Int64Value",
        )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.BatchingParameters"))()


class ConfigFiles(Case):
    def record(self, model_dir, env=None):
        """What the model server was started with."""
        folder = self.folder()
        env = {"FAKE_TFS_RECORD": str(folder), **(env or {})}
        self.start(model_dir, model_server=FAKE_MODEL_SERVER, env=env).wait_ready()
        return json.loads((folder / "start-0.json").read_text())

    def with_models(self, parent, *versions):
        """Empty SavedModels: the fake model server does not look into them."""
        for version in versions:
            folder = parent / version
            folder.mkdir(parents=True)
            (folder / "saved_model.pb").touch()
        return parent

    def models_in(self, record):
        config = text_format.Parse(record["model_config"], model_server_config_pb2.ModelServerConfig())
        self.assertEqual(config.WhichOneof("config"), "model_config_list")
        models = []
        for model in config.model_config_list.config:
            self.assertEqual(model.model_platform, "tensorflow")
            self.assertEqual(model.model_version_policy.WhichOneof("policy_choice"), "specific")
            models.append((model.name, model.base_path, list(model.model_version_policy.specific.versions)))
            # Nothing but what was looked at.
            fields = {field.name for field, _ in model.ListFields()}
            self.assertEqual(fields, {"name", "base_path", "model_platform", "model_version_policy"})
        return models

    def test_models_with_all_their_versions(self):
        root = self.folder() / ODD
        self.with_models(root / "export" / "Servo", "1", "0020", "9223372036854775807")
        self.with_models(root / "a.b-c_1", "00000123", "124")
        self.with_models(root / ".hidden", "1")
        self.assertEqual(
            self.models_in(self.record(root)),
            [
                ("Servo", str(root / "export" / "Servo"), [1, 20, 9223372036854775807]),
                ("a.b-c_1", str(root / "a.b-c_1"), [123, 124]),
            ],
        )

    def test_a_lone_saved_model_gets_a_version_folder(self):
        root = self.folder() / ODD / "net"
        self.with_models(root.parent, "net")
        temporary = self.folder() / ODD
        temporary.mkdir()
        ((name, base, versions),) = self.models_in(self.record(root, {"TMPDIR": str(temporary)}))
        self.assertEqual((name, versions), ("net", [1]))
        self.assertTrue(base.startswith(f"{temporary}/"), base)
        self.assertEqual(os.readlink(f"{base}/1"), str(root))

    def test_no_batching_file_without_batching(self):
        record = self.record(self.with_models(self.folder() / "model", "1"), {"SAGEMAKER_TFS_MAX_BATCH_SIZE": "5"})
        self.assertIsNone(record["batching_config"])
        self.assertFalse([word for word in record["argv"] if "batching" in word])

    def batching(self, env):
        env = {"SAGEMAKER_TFS_ENABLE_BATCHING": "True", **env}
        record = self.record(self.with_models(self.folder() / "model", "1"), env)
        self.assertIn("--enable_batching=true", record["argv"])
        parameters = text_format.Parse(record["batching_config"], batching_parameters())
        return {field.name: value.value for field, value in parameters.ListFields()}

    def test_batching_as_set(self):
        names = {
            "max_batch_size": "SAGEMAKER_TFS_MAX_BATCH_SIZE",
            "batch_timeout_micros": "SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS",
            "num_batch_threads": "SAGEMAKER_TFS_NUM_BATCH_THREADS",
            "max_enqueued_batches": "SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES",
        }
        values = {name: number for number, name in enumerate(names, start=2147483640)}
        self.assertEqual(self.batching({names[name]: str(value) for name, value in values.items()}), values)

    def test_batching_by_default(self):
        cpus = len(os.sched_getaffinity(0))
        expected = {"max_batch_size": 8, "batch_timeout_micros": 1000, "num_batch_threads": cpus}
        self.assertEqual(self.batching({}), {**expected, "max_enqueued_batches": cpus})
        self.assertEqual(
            self.batching({"SAGEMAKER_BATCH": "True"}), {**expected, "max_enqueued_batches": 100_000_000}
        )


if __name__ == "__main__":
    unittest.main()
