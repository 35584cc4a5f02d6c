"""Writes to the log in all the ways there are."""

import logging
import os
import subprocess
import sys
import warnings

logger = logging.getLogger("our.service")
chatty = logging.getLogger("chatty")
chatty.setLevel(logging.DEBUG)
# Does nothing where logging is set up already, as it is here.
logging.basicConfig(level=logging.CRITICAL)

print("import: print")
logging.info("import: root info")
sys.stderr.write("import: stderr\n")


def input_handler(data, context):
    word = data.read().decode()
    print(word, "by print")
    print(word, "to stderr by print", file=sys.stderr)
    sys.stdout.write(f"{word} by write\n")
    sys.stdout.buffer.write(f"{word} by buffer\n".encode())
    sys.stdout.buffer.flush()
    os.write(1, f"{word} by descriptor 1\n".encode())
    os.write(2, f"{word} by descriptor 2\n".encode())
    subprocess.run(["echo", word, "by a child"], check=True)
    warnings.warn(f"{word} by warnings")
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(logging, level)("%s root %s", word, level)
        getattr(logger, level)("%s named %s", word, level)
    chatty.debug("%s chatty debug", word)
    return word


def output_handler(response, context):
    word = response.text
    try:
        raise ValueError(f"{word} caught")
    except ValueError:
        logger.exception("%s with traceback", word)
    print(f"{word}: two\nlines: {word}")
    print(word, "größe 模型 \U0001f600")
    root = logging.getLogger()
    level = logging.getLevelName(root.getEffectiveLevel())
    return f"{level} {bool(root.handlers)} {sys.stdout.isatty()}", "text/plain"
