"""What the module, the interpreter and the process look like from inside: evaluates a request's body."""

import json
import os  # noqa: F401  (for requests)
import subprocess
import sys
import threading
from dataclasses import dataclass


def in_module():
    return [__name__, __file__, __name__ in sys.modules, threading.current_thread() is threading.main_thread()]


AT_IMPORT = in_module()


@dataclass
class Facts:
    value: object = None


def output_of(*arguments):
    return subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def input_handler(data, context):
    return json.dumps(Facts(eval(data.read(), globals())).value)


def output_handler(response, context):
    return response.content, "application/json"
