"""TensorFlow's protocol buffers without TensorFlow, as far as tensorflow-serving-api needs them.

  protos.py read FILE           collects their definitions from an installed TensorFlow
  protos.py write FILE FOLDER   makes the package `tensorflow` of them in FOLDER

FILE holds a google.protobuf.FileDescriptorSet. The modules have the names that they have in TensorFlow.
"""

import importlib
import pkgutil
import shutil
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2

MODULE = """# Made by docker/full/protos.py from the definitions of {name}.
from google.protobuf import descriptor_pool
from google.protobuf.internal import builder
{imports}
DESCRIPTOR = descriptor_pool.Default().AddSerializedFile({text!r})
builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
"""


def module(name):
    """The module of a definition."""
    place = name if name.startswith(("google/", "tensorflow/")) else f"tensorflow/compiler/{name}"
    return place.removesuffix(".proto").replace("/", ".") + "_pb2"


def read(file):
    api = importlib.import_module("tensorflow_serving")
    found = {}

    def add(descriptor):
        for one in descriptor.dependencies:
            add(one)
        if not descriptor.name.startswith(("google/", "tensorflow_serving/")):
            found[descriptor.name] = descriptor

    for info in pkgutil.walk_packages(api.__path__, f"{api.__name__}."):
        if info.name.endswith("_pb2"):
            add(importlib.import_module(info.name).DESCRIPTOR)
    definitions = descriptor_pb2.FileDescriptorSet()
    for descriptor in found.values():
        descriptor.CopyToProto(definitions.file.add())
    Path(file).write_bytes(definitions.SerializeToString(deterministic=True))


def write(file, folder):
    for definition in descriptor_pb2.FileDescriptorSet.FromString(Path(file).read_bytes()).file:
        public = [definition.dependency[index] for index in definition.public_dependency]
        imports = [f"import {module(name)}\n" for name in definition.dependency]
        # What a definition imports publicly is part of it.
        imports += [f"from {module(name)} import *\n" for name in public]
        path = Path(folder, module(definition.name).replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = definition.SerializeToString(deterministic=True)
        path.write_text(MODULE.format(name=definition.name, imports="".join(imports), text=text))
    shutil.copy(Path(__file__).with_name("absent.py"), Path(folder, "tensorflow", "__init__.py"))


if __name__ == "__main__":
    {"read": read, "write": write}[sys.argv[1]](*sys.argv[2:])
