"""The formats of requests and responses: each row of the tables in docs/GUIDE.md, sent to models of TensorFlow."""

import csv
import gzip
import io
import json
import math
import os
import re

import numpy as np
import pandas as pd
import tensorflow as tf

from tests.harness.case import ServerCase
from tests.harness.constants import CSV, JSON, JSON_LINES, ROOT

GUIDE = (ROOT / "docs" / "GUIDE.md").read_text()
NPY, NPZ = "application/x-npy", "application/x-npz"


def table(name):
    """The cells of each row of a table, without its head."""
    text = re.search(f"<!-- {name}:start -->\n(.*?)<!-- {name}:end -->", GUIDE, re.DOTALL)[1]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()[2:]]


def code(cell):
    """The text of a cell: lines in backquotes with a return sign between them."""
    return "\n".join(part.strip().removeprefix("`").removesuffix("`") for part in cell.split("⏎"))


def signature(cell):
    """The signature of the model echo whose inputs, and outputs, these are."""
    inputs = code(cell)
    if ":" in inputs:
        return {"a": "two", "age": "mixed"}[inputs.split(":")[0]]
    dtype, shape = inputs.split(" ", 1)
    sizes = ["n" if size == -1 else str(size) for size in json.loads(shape)[1:]]
    return "_".join([dtype, *sizes])


def saved(arrays):
    """The bytes of an .npy or .npz file, and its media type."""
    out = io.BytesIO()
    if isinstance(arrays, dict):
        np.savez(out, **arrays)
        return out.getvalue(), NPZ
    np.save(out, arrays)
    return out.getvalue(), NPY


def evaluated(cell):
    return eval(code(cell), {"np": np})


class Formats(ServerCase):
    env = {}

    @classmethod
    def setUpClass(cls):
        cls.server = cls.start(cls.model_dir("echo", "half_plus_three", "image", "keras"), env=cls.env).wait_ready()

    def post(self, body, content_type=JSON, accept=None, signature=None, model=None, headers=None, method=None):
        attributes = {"tfs-model-name": model, "tfs-signature-name": signature, "tfs-method": method}
        attributes = ",".join(f"{name}={value}" for name, value in attributes.items() if value)
        return self.invoke(self.server, body, content_type, attributes or None, accept, **(headers or {}))

    def predictions(self, *arguments, **options):
        answer = self.post(*arguments, **options)
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json()["predictions"]

    def check_row(self, body, content_type, name, expected):
        answer = self.post(body, content_type, signature=name)
        if expected.startswith("400"):
            self.assertEqual(answer.status, 400, answer.text)
            self.assertIn(code(expected.removeprefix("400").strip()), answer.json()["error"])
            return
        self.assertEqual(answer.status, 200, answer.text)
        self.assert_alike(answer.json()["predictions"], json.loads(code(expected)))

    def assert_alike(self, found, expected):
        """Equal by value, where NaN is NaN."""
        if isinstance(expected, float) and math.isnan(expected):
            self.assertTrue(isinstance(found, float) and math.isnan(found), found)
        elif isinstance(expected, list):
            self.assertEqual(len(found), len(expected), (found, expected))
            for one, other in zip(found, expected):
                self.assert_alike(one, other)
        elif isinstance(expected, dict):
            self.assertEqual(found.keys(), expected.keys())
            for key in expected:
                self.assert_alike(found[key], expected[key])
        else:
            self.assertEqual(found, expected)
            self.assertIs(type(found), type(expected), (found, expected))

    def assert_arrays(self, body, expected):
        found = np.load(io.BytesIO(body), allow_pickle=False)
        if isinstance(expected, dict):
            self.assertEqual(set(found.files), set(expected))
            return [np.testing.assert_array_equal(found[name], expected[name], strict=True) for name in expected]
        np.testing.assert_array_equal(found, expected, strict=True)

    def test_csv(self):
        for kind in ("csv", "csv; header=present"):
            rows = table(kind)
            self.assertGreater(len(rows), 4)
            for inputs, body, expected in rows:
                with self.subTest(kind, inputs=inputs, body=body):
                    self.check_row(code(body), f"text/{kind}", signature(inputs), expected)

    def test_numpy(self):
        rows = table("numpy")
        self.assertGreater(len(rows), 10)
        for inputs, array, expected in rows:
            with self.subTest(inputs=inputs, array=array):
                self.check_row(*saved(evaluated(array)), signature(inputs), expected)

    def test_responses(self):
        rows = table("responses")
        self.assertGreater(len(rows), 8)
        for outputs, predictions, lines, table_rows, arrays in rows:
            body = f'{{"instances": {code(predictions)}}}'
            for accept, expected in ((JSON_LINES, lines), (CSV, table_rows)):
                with self.subTest(outputs=outputs, accept=accept):
                    answer = self.post(body, accept=accept, signature=signature(outputs))
                    self.check(answer, code(expected) + "\n", content_type=accept)
            with self.subTest(outputs=outputs, accept=NPY):
                answer = self.post(body, accept=NPY, signature=signature(outputs))
                self.assertEqual(answer.status, 200, answer.text)
                wanted = evaluated(arrays)
                self.assertEqual(answer.headers["Content-Type"], NPZ if isinstance(wanted, dict) else NPY)
                self.assert_arrays(answer.body, wanted)
            with self.subTest(outputs=outputs, accept=NPZ):
                answer = self.post(body, accept=NPZ, signature=signature(outputs))
                self.assert_arrays(answer.body, wanted if isinstance(wanted, dict) else {"y": wanted})

    def test_header_lines_of_responses(self):
        for name, body, expected in (
            ("float32", "[1.5]", "y\n1.5\n"),
            ("float32_2", "[[1.5, 2.0]]", "y_0,y_1\n1.5,2.0\n"),
            ("two", '[{"a": 1.5, "b": "x"}]', "a,b\n1.5,x\n"),
        ):
            answer = self.post(f'{{"instances": {body}}}', accept="text/csv; header=present", signature=name)
            self.check(answer, expected, content_type="text/csv; header=present")

    def test_column_form_classify_and_regress(self):
        columns = '{"inputs": {"a": [1.0, 2.0], "b": ["x", "y"]}}'
        self.check(self.post(columns, accept=CSV, signature="two"), "1.0,x\n2.0,y\n", content_type=CSV)
        lines = '{"a":1.0,"b":"x"}\n{"a":2.0,"b":"y"}\n'
        self.check(self.post(columns, accept=JSON_LINES, signature="two"), lines, content_type=JSON_LINES)
        self.check(self.post('{"inputs": [1.5, 2.0]}', accept=CSV, signature="float32"), "1.5\n2.0\n", content_type=CSV)
        half = {"model": "half_plus_three", "content_type": "text/csv; header=present", "accept": CSV}
        answer = self.post("x\n1.5\n2.5\n", method="regress", signature="regress_x_to_y", **half)
        self.check(answer, "3.75\n4.25\n", content_type=CSV)
        answer = self.post("x\n1.5\n", method="classify", signature="classify_x_to_y", **half)
        self.check(answer, ",3.75\n", content_type=CSV)
        answer = self.post('{"x": 1.0}\n{"x": 2.0}\n', JSON_LINES, JSON_LINES, "regress_x_to_y", "half_plus_three", method="regress")
        self.check(answer, "3.5\n4.0\n", content_type=JSON_LINES)

    def test_features(self):
        for body in ('{"features": [1, 2]}\n{"features": [3, 4]}\n', '[{"features": [1, 2]}, {"features": [3, 4]}]'):
            self.assertEqual(self.predictions(body, JSON_LINES, signature="float32_2"), [[1.0, 2.0], [3.0, 4.0]])

    def test_a_model_of_keras_with_two_inputs(self):
        header = "text/csv; header=present"
        rows = self.predictions("three_0,three_1,three_2,one\n1,2,3,4\n5,6,7,\n", header, model="keras")
        self.assertEqual(rows[0], [10.0])
        self.assertTrue(math.isnan(rows[1][0]))
        body, content_type = saved({"one": np.float32([[4]]), "three": np.float64([[1, 2, 3]])})
        self.assertEqual(self.predictions(body, content_type, model="keras"), [[10.0]])
        answer = self.post("1,2\n", CSV, model="keras")
        self.check_error(answer, 400, "The model has several inputs: one, three.")

    def test_examples_and_records(self):
        features = [[1.5, 2.0], [3.0, 4.0]]
        examples = [
            tf.train.Example(
                features=tf.train.Features(feature={"x": tf.train.Feature(float_list=tf.train.FloatList(value=row))})
            ).SerializeToString()
            for row in features
        ]
        path = self.folder() / "records"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in examples:
                writer.write(example)
        stream = path.read_bytes()
        for content_type in ("application/x-tfrecord", "application/x-tfexample"):
            self.assertEqual(self.predictions(stream, content_type, signature="examples"), features)
        found = self.predictions(examples[0], "application/x-tfexample", signature="examples")
        self.assertEqual(found, features[:1])
        broken = self.post(stream[:-1] + b"x", "application/x-tfrecord", signature="examples")
        self.assertEqual(broken.status, 400, broken.text)

    def test_content_is_recognized_in_octet_streams(self):
        array = np.float32([[1.5]])
        for body in (saved(array)[0], saved({"x": array})[0], b"[[1.5]]"):
            found = self.predictions(body, "application/octet-stream", signature="float32_1")
            self.assertEqual(found, [[1.5]])

    def test_compressed_bodies(self):
        headers = {"Content-Encoding": "gzip"}
        body = gzip.compress(b"1.5\n2\n")
        self.assertEqual(self.predictions(body, CSV, signature="float32", headers=headers), [1.5, 2.0])
        answer = self.server.request(
            "POST", "/tfs/v1/models/half_plus_three:predict", gzip.compress(b'{"instances": [1.0]}'), headers
        )
        self.assertEqual(answer.json(), {"predictions": [3.5]})
        answer = self.post(body, CSV, headers={"Content-Encoding": "br"})
        self.check_error(answer, 415, "gzip")

    def test_files_of_pandas_csv_and_numpy_come_back_equal(self):
        """Random values through the program that writes them, the server, the model, and back in each format."""
        random = np.random.default_rng(seed=int(os.environ.get("SAGEMAKER_TFS_TEST_SEED", 1)))
        for round in range(20):
            count = int(random.integers(1, 50))
            floats = random.normal(scale=10.0 ** random.integers(-30, 30), size=(count, 2)).astype(np.float32)
            floats[random.random(floats.shape) < 0.2] = np.nan
            integers = random.integers(-(2**63), 2**63 - 1, size=(count, 2), dtype=np.int64, endpoint=True)
            # No bare carriage return: Python writes it without quotes, and takes it for a line end when it reads.
            letters = ["a", "7", ",", "\"", "\n", "'", " ", ";", "é", "\U0001f600", "\\", "NA", "\t"]
            texts = np.array([["".join(random.choice(letters, 4)) for _ in range(2)] for _ in range(count)], object)
            bools = random.random((count, 2)) < 0.5
            for name, values in (("float32_2", floats), ("int64_2", integers), ("string_2", texts), ("bool_2", bools)):
                with self.subTest(name, round=round):
                    self.check_files(name, values, random)

    def check_files(self, name, values, random):
        quoting = int(random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
        if name == "string_2" and quoting == csv.QUOTE_MINIMAL:
            # Without quotes, blanks at the ends of rows do not count.
            values = np.array([[text.strip(" \t") for text in row] for row in values], object)
        frame = pd.DataFrame(values, columns=["one", "two"])
        end = str(random.choice(["\n", "\r\n"]))
        text = frame.to_csv(index=False, quoting=quoting, lineterminator=end, na_rep=str(random.choice(["", "NA", "nan"])))
        written = io.StringIO()
        csv.writer(written, quoting=quoting, lineterminator=end).writerows(values.tolist())
        array = values.astype("U") if name == "string_2" else values
        saved_array = saved(np.asfortranarray(array) if random.random() < 0.5 else array)
        for body, content_type in (
            (text.encode(), "text/csv; header=present"),
            (written.getvalue().encode(), CSV),
            saved_array,
        ):
            answer = self.post(body, content_type, NPY, name)
            self.assertEqual(answer.status, 200, (answer.text[:300], body))
            found = np.load(io.BytesIO(answer.body))
            np.testing.assert_array_equal(found, array, err_msg=repr(body))
            answer = self.post(body, content_type, CSV, name)
            read = pd.read_csv(io.BytesIO(answer.body), header=None, dtype=str if name == "string_2" else None,
                               keep_default_na=name != "string_2", float_precision="round_trip", lineterminator="\n")
            np.testing.assert_array_equal(read.to_numpy().astype(array.dtype), array, err_msg=answer.text[:300])

    def test_joins_have_as_many_lines_as_requests(self):
        count = 1000
        for content_type, line in ((CSV, "{},{}"), (JSON_LINES, "[{}, {}]")):
            lines = [line.format(number, number / 8) for number in range(count)]
            answer = self.post("\n".join(lines) + "\n", content_type, content_type, "float32_2")
            self.assertEqual(answer.status, 200, answer.text[:500])
            joined = list(zip(lines, answer.text.splitlines(), strict=True))
            self.assertEqual(len(joined), count)
            for given, found in joined:
                numbers = [float(number) for number in re.findall(r"[\d.]+", given)]
                self.assertEqual([float(number) for number in re.findall(r"[\d.]+", found)], numbers)

    def test_nothing_acceptable(self):
        answer = self.post("1\n", CSV, accept="text/html")
        self.check_error(answer, 406, "application/jsonlines")


class Defaults(ServerCase):
    def test_settings_choose_the_format_of_responses_and_the_signature(self):
        env = {
            "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv; header=present",
            "SAGEMAKER_TFS_DEFAULT_SIGNATURE": "float32_2",
            "SAGEMAKER_TFS_CSV_HEADER": "auto",
        }
        server = self.start(self.model_dir("echo"), env=env).wait_ready()
        for accept in (None, "*/*"):
            answer = self.invoke(server, "w,h\n1,2\n", CSV, accept=accept)
            self.check(answer, "y_0,y_1\n1.0,2.0\n", content_type="text/csv; header=present")
        self.check_json(self.invoke(server, "1,2\n", CSV, accept=JSON), {"predictions": [[1.0, 2.0]]})
