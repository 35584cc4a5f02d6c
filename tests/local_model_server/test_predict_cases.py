"""Predict requests and the answers of TFS 2.19 to them, through the parser, the checks and the writers of the stand-in.

A line of `predict_cases.jsonl` is a recorded case: the inputs of the signature, the body, status and answer. The model
gives its inputs back.
"""

import base64
import json
import re
import sys
import unittest
from pathlib import Path
from types import SimpleNamespace

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from tests.harness.constants import ROOT

sys.path.append(str(ROOT / "scripts"))

from local_model_server.rest_api import RestApi  # noqa: E402  (found through the line above)

CASES = [json.loads(line) for line in Path(__file__).with_name("predict_cases.jsonl").read_text().splitlines()]
ESCAPE = re.compile(r"\\u[0-9a-fA-F]{4}")
OFFSET = re.compile(r" at offset: \d+")
FLOAT = re.compile(r"\d+(?:\.\d+(?:e[+-]?\d+)?|e[+-]?\d+)")


class Identity:
    """A model whose signature has the given inputs, which are its outputs as well."""

    def __init__(self, inputs, signature_name):
        signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
        for part in inputs.split(","):
            name, kind = part.split(":")
            for tensors in (signature.inputs, signature.outputs):
                tensors[name].name = f"{name}:0"
                tensors[name].dtype = tf.dtypes.as_dtype(kind).as_datatype_enum
        self.signatures = {signature_name: signature}

    def run(self, feeds, fetches, timeout_ms=0):
        return [feeds[name] for name in fetches]


class Cases(unittest.TestCase):
    maxDiff = None

    def test_every_recorded_case(self):
        self.assertGreater(len(CASES), 90)
        for case in CASES:
            with self.subTest(case["case"]):
                body = base64.b64decode(case["body_base64"]) if "body_base64" in case else case["body"].encode()
                named = re.search(rb'"signature_name": *"(\w+)"', body)
                model = Identity(case["inputs"], named[1].decode() if named else "serving_default")
                servables = SimpleNamespace(find=lambda *_: SimpleNamespace(model=model))
                status, answer = RestApi(servables, 1000).answer("POST", "/v1/models/m:predict", body)
                answer = answer.decode("utf-8", "backslashreplace")
                compared = by_value if status != 200 or "," in case["inputs"] else to_the_byte
                self.assertEqual((status, compared(answer)), (case["status"], compared(case["answer"])))


def to_the_byte(text):
    return ESCAPE.sub(lambda found: found[0].lower(), text)  # but for the case of hexadecimal digits


def by_value(text):
    """An answer whose outputs may be in another order, or an error with numbers by value and without offsets."""
    value = json.loads(text)
    if "error" not in value:
        return json.dumps(value, sort_keys=True)
    return FLOAT.sub(lambda found: str(float(found[0])), OFFSET.sub("", value["error"]))
