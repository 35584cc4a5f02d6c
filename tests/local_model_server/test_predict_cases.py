"""Predict requests and the answers of TFS 2.19 to them, through the stand-in's parser, checks and writers.

`predict_cases.jsonl` holds answers of TFS's own JSON code, recorded by version. A line is a case: the
signature's inputs, the body, and under `head` the answer of 2.19. Other keys are older versions whose answer
differs; they show what changed and are not compared. The model gives its inputs back.
"""

import base64
import json
import pathlib
import re
import sys
import unittest
from types import SimpleNamespace

from harness import ROOT

sys.path.append(str(ROOT / "scripts"))

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from local_model_server.rest_api import RestApi

CASES = pathlib.Path(__file__).with_name("predict_cases.jsonl").read_text().splitlines()
TYPES = {"float": tf.float32, "double": tf.float64, "half": tf.float16}
OFFSET = re.compile(r"at offset: \d+")


class Identity:
    """A model that has every signature, each with the same inputs, which are its outputs as well."""

    def __init__(self, inputs):
        signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
        for part in inputs.split(","):
            name, kind = part.split(":")
            dtype = TYPES.get(kind) or tf.dtypes.as_dtype(kind)
            for tensors in (signature.inputs, signature.outputs):
                tensors[name].name = f"{name}:0"
                tensors[name].dtype = dtype.as_datatype_enum
        self.signatures = _Every(signature)

    def run(self, feeds, fetches, timeout_ms=0):
        return [feeds[name] for name in fetches]


class _Every(dict):
    def __init__(self, value):
        self._value = value

    def __contains__(self, _):
        return True

    def __getitem__(self, _):
        return self._value


class Cases(unittest.TestCase):
    def test_every_recorded_case(self):
        self.assertGreater(len(CASES), 90)
        for case in map(json.loads, CASES):
            with self.subTest(case["case"]):
                servable = SimpleNamespace(model=Identity(case["inputs"]))
                api = RestApi(SimpleNamespace(find=lambda *_: servable), 1000)
                body = base64.b64decode(case["body_base64"]) if "body_base64" in case else case["body"].encode()
                answer = api.answer("POST", "/v1/models/m:predict", body)
                wanted = case["head"]
                text = answer.body.decode("utf-8", "backslashreplace")
                self.assertEqual((answer.status, comparable(text)), (wanted["status"], comparable(wanted["text"])))


def comparable(text):
    """JSON by value where it parses; error texts in full but for the numbers of offsets."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, dict) and isinstance(value.get("error"), str):
        return OFFSET.sub("at offset: N", value["error"])
    return json.dumps(value, sort_keys=True)


if __name__ == "__main__":
    unittest.main()
