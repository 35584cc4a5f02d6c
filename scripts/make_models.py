#!/usr/bin/env python3
"""Makes the small SavedModels that the demo and the tests serve: make_models.py OUT_DIR

  half_plus_three  y = x / 2 + 3 as TensorFlow 1 exported it, versions 123 and 124, with the signatures
                   of TFS's well-known test model: predict, classify and regress
  demo             a classifier of three kinds of flowers by four measures, trained here on made-up data
  types            inputs and outputs of every JSON kind; signatures: serving_default (f, i, b, s),
                   numbers (other number types), any_shape (no shape known), echo, sums, strings
  image            encoded pictures in (`image_bytes`), their shapes and mean brightness out
  slow             works for as many `seconds` as asked, then returns them
  broken           a file that is no SavedModel

A model that is there already is left alone. Needs TensorFlow, and a few seconds.
"""

import os
import pathlib
import sys
import tempfile
import time

VERSIONS_OF_HALF_PLUS_THREE = (123, 124)


def half_plus_three(path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        a = v1.get_variable("a", initializer=0.5, use_resource=False)
        b = v1.get_variable("b", initializer=3.0, use_resource=False)
        c = v1.get_variable("c", initializer=4.0, use_resource=False)
        examples = v1.placeholder(tf.string, [None], name="tf_example")
        features = {name: tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]) for name in ("x", "x2")}
        parsed = tf.io.parse_example(examples, features)
        x = tf.identity(parsed["x"], name="x")
        y = tf.add(tf.multiply(a, x), b, name="y")
        y2 = tf.add(tf.multiply(a, x), c, name="y2")
        y3 = tf.add(tf.multiply(a, parsed["x2"]), c, name="y3")

        info = v1.saved_model.build_tensor_info

        def signature(inputs, outputs, method):
            return v1.saved_model.build_signature_def(inputs, outputs, f"tensorflow/serving/{method}")

        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": signature({"x": info(x)}, {"y": info(y)}, "predict"),
                "regress_x_to_y": signature({"inputs": info(examples)}, {"outputs": info(y)}, "regress"),
                "tensorflow/serving/regress": signature({"inputs": info(examples)}, {"outputs": info(y)}, "regress"),
                "regress_x_to_y2": signature({"inputs": info(examples)}, {"outputs": info(y2)}, "regress"),
                "regress_x2_to_y3": signature({"inputs": info(examples)}, {"outputs": info(y3)}, "regress"),
                "classify_x_to_y": signature({"inputs": info(examples)}, {"scores": info(y)}, "classify"),
            },
        )
        builder.save()


def demo(path):
    """Flowers: softmax regression, by plain gradient descent, on three clouds of points."""
    import numpy as np

    names = ["small", "middle", "large"]
    centers = np.array([[5.0, 3.4, 1.5, 0.2], [5.9, 2.8, 4.3, 1.3], [6.6, 3.0, 5.6, 2.0]], np.float32)
    spread = np.array([0.35, 0.3, 0.35, 0.2], np.float32)
    random = np.random.default_rng(seed=1)
    kinds = random.integers(0, 3, 600)
    measures = (centers[kinds] + random.normal(size=(600, 4)) * spread).astype(np.float32)
    mean, scale = measures.mean(axis=0), measures.std(axis=0)
    scaled, wanted = (measures - mean) / scale, np.eye(3, dtype=np.float32)[kinds]

    weights, bias = np.zeros((4, 3), np.float32), np.zeros(3, np.float32)
    for _ in range(500):
        scores = np.exp(scaled @ weights + bias)
        error = scores / scores.sum(axis=1, keepdims=True) - wanted
        weights -= 0.5 * scaled.T @ error / len(scaled)
        bias -= 0.5 * error.mean(axis=0)
    right = ((scaled @ weights + bias).argmax(axis=1) == kinds).mean()
    print(f"  trained on {len(kinds)} flowers, {right:.1%} right")

    class Flowers(tf.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.scale = tf.Variable(mean), tf.Variable(scale)
            self.weights, self.bias = tf.Variable(weights), tf.Variable(bias)

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="measures")])
        def serve(self, measures):
            scaled = (measures - self.mean) / self.scale
            probabilities = tf.nn.softmax(scaled @ self.weights + self.bias)
            return {
                "label": tf.gather(names, tf.argmax(probabilities, axis=1)),
                "probabilities": probabilities,
            }

    module = Flowers()
    tf.saved_model.save(module, path, {"serving_default": module.serve})


def types(path):
    def spec(dtype, name, shape=(None,)):
        return tf.TensorSpec(shape, dtype, name=name)

    class Types(tf.Module):
        @tf.function(
            input_signature=[
                spec(tf.float32, "f"),
                spec(tf.int64, "i"),
                spec(tf.bool, "b"),
                spec(tf.string, "s"),
            ]
        )
        def every_kind(self, f, i, b, s):
            return {
                "half": f / 2,
                "next": i + 1,
                "not": tf.logical_not(b),
                "text": s,
                "text_bytes": s,
                "pair": tf.stack([f, -f], axis=1),
            }

        @tf.function(input_signature=[spec(tf.float64, "double"), spec(tf.int32, "int32"), spec(tf.uint8, "uint8")])
        def numbers(self, double, int32, uint8):
            return {"double": double, "int32": int32, "uint8": uint8}

        @tf.function(input_signature=[spec(tf.float32, "x", None)])
        def any_shape(self, x):
            return {"y": x + 1}

        @tf.function(input_signature=[spec(tf.float32, "x", None)])
        def echo(self, x):
            return {"y": tf.identity(x)}

        @tf.function(input_signature=[spec(tf.float32, "x", (None, 2))])
        def sums(self, x):
            return {"total": tf.reduce_sum(x)}

        @tf.function(input_signature=[spec(tf.string, "s", None)])
        def strings(self, s):
            return {"out_bytes": s}

    module = Types()
    signatures = {"serving_default": module.every_kind}
    signatures.update({name: getattr(module, name) for name in ("numbers", "any_shape", "echo", "sums", "strings")})
    tf.saved_model.save(module, path, signatures)


def image(path):
    def look(encoded):
        pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.shape(pixels), tf.reduce_mean(tf.cast(pixels, tf.float32))

    class Image(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serve(self, image_bytes):
            kinds = (tf.TensorSpec([3], tf.int32), tf.TensorSpec([], tf.float32))
            shape, mean = tf.map_fn(look, image_bytes, fn_output_signature=kinds)
            return {"shape": shape, "mean": mean}

    module = Image()
    tf.saved_model.save(module, path, {"serving_default": module.serve})


def slow(path):
    class Slow(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="seconds")])
        def serve(self, seconds):
            end = tf.timestamp() + tf.cast(tf.reduce_max(seconds), tf.float64)
            rounds = tf.while_loop(lambda _: tf.timestamp() < end, lambda n: [n + 1], [tf.constant(0)])
            with tf.control_dependencies(rounds):
                return {"seconds": tf.identity(seconds)}

    module = Slow()
    tf.saved_model.save(module, path, {"serving_default": module.serve})


def broken(path):
    os.makedirs(path)
    pathlib.Path(path, "saved_model.pb").write_bytes(b"this is no SavedModel\n")


MODELS = [
    *((half_plus_three, version) for version in VERSIONS_OF_HALF_PLUS_THREE),
    *((make, 1) for make in (demo, types, image, slow, broken)),
]


def make_all(out):
    """Makes what is missing under `out`, each model whole or not at all."""
    missing = [(make, out / make.__name__ / str(version)) for make, version in MODELS]
    missing = [(make, path) for make, path in missing if not path.exists()]
    if not missing:
        print(f"all models are in {out}")
        return
    _import_tensorflow()
    out.mkdir(parents=True, exist_ok=True)
    for make, path in missing:
        start = time.monotonic()
        print(f"making {path}", flush=True)
        path.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".making-") as scratch:
            make(os.path.join(scratch, "model"))
            try:
                os.rename(os.path.join(scratch, "model"), path)
            except OSError:
                if not path.exists():  # else another run has just made it
                    raise
        print(f"  done in {time.monotonic() - start:.1f} s", flush=True)


def _import_tensorflow():
    global tf
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # these models gain nothing from a GPU
    print("importing TensorFlow ...", flush=True)
    try:
        import tensorflow as tf
    except ImportError as error:
        sys.exit(
            f"make_models.py: {sys.executable} lacks TensorFlow ({error}); "
            "run ./scripts/demo.sh or ./scripts/test.sh, which make an environment with it."
        )
    tf.get_logger().setLevel("ERROR")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    make_all(pathlib.Path(sys.argv[1]))
