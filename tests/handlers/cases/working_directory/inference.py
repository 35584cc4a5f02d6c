"""Writes files: into the working directory, and where `tempfile` puts them."""

import os
import tempfile
import uuid
from pathlib import Path


def handler(data, context):
    content = data.read()
    path = Path(f"handler-{uuid.uuid4()}.bin")
    path.write_bytes(content)
    try:
        os.mkdir(f"{path}.d")
        os.rmdir(f"{path}.d")
        assert path.name in os.listdir(".")
        assert Path(os.getcwd(), path).read_bytes() == content
    finally:
        path.unlink()
    with tempfile.NamedTemporaryFile(suffix=".txt") as temporary:
        temporary.write(content)
        temporary.flush()
        return Path(temporary.name).read_bytes(), "text/plain"
