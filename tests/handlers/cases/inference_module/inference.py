"""What looks up the script's module by its name: dataclasses, typing, pickle, and pools of processes."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys
import typing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields  # noqa: F401  (for requests)

import asks_inference


@dataclass
class Row:
    name: str
    values: typing.ClassVar[list[float]] = []


def square(number):
    return number * number


def pool(start):
    with ProcessPoolExecutor(1, multiprocessing.get_context(start)) as processes:
        return list(processes.map(square, [1, 2, 3]))


def child(*arguments):
    return subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def handler(data, context):
    return json.dumps(eval(data.read(), globals())), "application/json"
