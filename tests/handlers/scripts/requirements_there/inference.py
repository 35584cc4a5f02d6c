"""Comes with a requirements.txt."""
import numpy as np
import requests


def handler(data, context):
    return f"{np.sum([1, 2])} {requests.codes.ok}", "text/plain"
