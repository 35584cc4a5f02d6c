"""Log lines on stderr in the manner of TFS: `<time>: <I|W|E> <source>] <text>`.

One write a line, so that lines of several threads and of TensorFlow itself do not mix.
"""

import datetime
import sys


def info(source, text):
    _write("I", source, text)


def warning(source, text):
    _write("W", source, text)


def error(source, text):
    _write("E", source, text)


def _write(level, source, text):
    now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S.%f")
    sys.stderr.write(f"{now}: {level} local_model_server/{source}.py] {text}\n")
    sys.stderr.flush()
