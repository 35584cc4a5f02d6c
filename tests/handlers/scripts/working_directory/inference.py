"""Writes files: into the working directory, and where `tempfile` puts them."""
import json
import os
import tempfile
import uuid


def handler(data, context):
    content = data.read()
    name = "handler-%s.bin" % uuid.uuid4()
    with open(name, "wb") as f:
        f.write(content)
    try:
        os.makedirs(name + ".d")
        os.rmdir(name + ".d")
        listed = name in os.listdir(".") and os.path.isabs(os.getcwd())
        size = os.path.getsize(os.path.join(os.getcwd(), name))
    finally:
        os.remove(name)
    with tempfile.NamedTemporaryFile(suffix=".txt") as temporary:
        temporary.write(content)
        temporary.flush()
        with open(temporary.name, "rb") as again:
            same = again.read() == content
    return json.dumps({"listed": listed, "size": size, "same": same}), "application/json"
