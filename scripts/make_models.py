#!/usr/bin/env python3
"""Makes the small SavedModels that the demo and the tests serve: make_models.py OUT_DIR

  half_plus_three  y = x / 2 + 3 as TensorFlow 1 exported it, versions 123 and 124, with the signatures
                   of TFS's well-known test model: predict, classify and regress
  demo             a classifier of three kinds of flowers by four measures, trained here on made-up data
  types            inputs and outputs of every JSON kind; signatures: serving_default (f, i, b, s),
                   numbers (other number types), any_shape (no shape known), echo, sums, strings
  image            takes encoded pictures (`image_bytes`), returns their shapes and mean brightness
  echo             returns its inputs; a signature for each type and shape, such as `float32_2_3` for [-1, 2, 3]
  keras            two named inputs, `one` of shape [-1, 1] and `three` of shape [-1, 3], as Keras exports them
  slow             works for the `seconds` that it is given, then returns them
  broken           a file that is no SavedModel

A model that is there already is left alone. It needs a few seconds and TensorFlow, which test.sh and demo.sh install.
"""

import os
import pathlib
import sys
import tempfile
import time


def function(shape=(None,), **inputs):
    """Decorates a function of tensors of this shape with these names and types."""
    return tf.function(input_signature=[tf.TensorSpec(shape, dtype, name) for name, dtype in inputs.items()])


def save(path, variables=None, **signatures):
    """Saves functions by the names of their signatures, with the variables that they use."""
    module = tf.Module()
    module.parts = (variables, signatures)
    tf.saved_model.save(module, path, signatures)


def half_plus_three(path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        values = {"a": 0.5, "b": 3.0, "c": 4.0}
        a, b, c = (v1.get_variable(name, initializer=value, use_resource=False) for name, value in values.items())
        examples = v1.placeholder(tf.string, [None], name="tf_example")
        features = {name: tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]) for name in ("x", "x2")}
        parsed = tf.io.parse_example(examples, features)
        x = tf.identity(parsed["x"], name="x")
        y = tf.add(tf.multiply(a, x), b, name="y")
        y2 = tf.add(tf.multiply(a, x), c, name="y2")
        y3 = tf.add(tf.multiply(a, parsed["x2"]), c, name="y3")

        def signature(method, **tensors):
            """Takes one input and returns one output, in this order."""
            (given, x), (found, y) = ((n, v1.saved_model.build_tensor_info(tensor)) for n, tensor in tensors.items())
            return v1.saved_model.build_signature_def({given: x}, {found: y}, f"tensorflow/serving/{method}")

        signatures = {
            "serving_default": signature("predict", x=x, y=y),
            "regress_x_to_y": signature("regress", inputs=examples, outputs=y),
            "tensorflow/serving/regress": signature("regress", inputs=examples, outputs=y),
            "regress_x_to_y2": signature("regress", inputs=examples, outputs=y2),
            "regress_x2_to_y3": signature("regress", inputs=examples, outputs=y3),
            "classify_x_to_y": signature("classify", inputs=examples, scores=y),
        }
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
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

    variables = [tf.Variable(values) for values in (mean, scale, weights, bias)]

    @function((None, 4), measures=tf.float32)
    def serve(measures):
        mean, scale, weights, bias = variables
        probabilities = tf.nn.softmax((measures - mean) / scale @ weights + bias)
        return {"label": tf.gather(names, tf.argmax(probabilities, axis=1)), "probabilities": probabilities}

    save(path, variables, serving_default=serve)


def types(path):
    @function(f=tf.float32, i=tf.int64, b=tf.bool, s=tf.string)
    def every_kind(f, i, b, s):
        pair = tf.stack([f, -f], axis=1)
        return {"half": f / 2, "next": i + 1, "not": tf.logical_not(b), "text": s, "text_bytes": s, "pair": pair}

    @function(double=tf.float64, int32=tf.int32, uint8=tf.uint8)
    def numbers(double, int32, uint8):
        return {"double": double, "int32": int32, "uint8": uint8}

    any_float, any_string = function(None, x=tf.float32), function(None, s=tf.string)
    save(
        path,
        serving_default=every_kind,
        numbers=numbers,
        any_shape=any_float(lambda x: {"y": x + 1}),
        echo=any_float(lambda x: {"y": tf.identity(x)}),
        sums=function((None, 2), x=tf.float32)(lambda x: {"total": tf.reduce_sum(x)}),
        strings=any_string(lambda s: {"out_bytes": s}),
    )


def image(path):
    def look(encoded):
        pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.shape(pixels), tf.reduce_mean(tf.cast(pixels, tf.float32))

    @function(image_bytes=tf.string)
    def serve(image_bytes):
        kinds = (tf.TensorSpec([3], tf.int32), tf.TensorSpec([], tf.float32))
        shape, mean = tf.map_fn(look, image_bytes, fn_output_signature=kinds)
        return {"shape": shape, "mean": mean}

    save(path, serving_default=serve)


# The signatures of the model echo with one input: type and shape.
ECHOED = [
    *(("float32", shape) for shape in ([None], [None, 1], [None, 2], [None, 2, 3], [None, None, 2])),
    *(("float64", shape) for shape in ([None], [None, 2])),
    *(("int64", shape) for shape in ([None], [None, 1], [None, 2])),
    *(("uint8", shape) for shape in ([None, 2, 2],)),
    *(("bool", shape) for shape in ([None], [None, 2])),
    *(("string", shape) for shape in ([None], [None, 1], [None, 2])),
]


def echo(path):
    def one(dtype, shape):
        return function(shape, x=tf.as_dtype(dtype))(lambda x: {"y": tf.identity(x)})

    def name(dtype, shape):
        return "_".join([dtype, *(str(size or "n") for size in shape[1:])])

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, "age"),
            tf.TensorSpec([None, 1], tf.string, "name"),
            tf.TensorSpec([None, 2], tf.float32, "pair"),
        ]
    )
    def mixed(age, name, pair):
        return {"age": tf.identity(age), "name": tf.identity(name), "pair": tf.identity(pair)}

    two = function(a=tf.float32, b=tf.string)(lambda a, b: {"a": tf.identity(a), "b": tf.identity(b)})

    @function(examples=tf.string)
    def examples(examples):
        return {"x": tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([2], tf.float32)})["x"]}

    signatures = {name(*signature): one(*signature) for signature in ECHOED}
    save(path, None, serving_default=one("float32", [None, 1]), mixed=mixed, two=two, examples=examples, **signatures)


def keras(path):
    layers = tf.keras.layers
    one, three = tf.keras.Input((1,), name="one"), tf.keras.Input((3,), name="three")
    joined = layers.Concatenate()([one, three])
    total = layers.Dense(1, use_bias=False, kernel_initializer="ones", name="total")(joined)
    tf.keras.Model([one, three], total).export(path, verbose=False)


def slow(path):
    @function(seconds=tf.float32)
    def serve(seconds):
        end = tf.timestamp() + tf.cast(tf.reduce_max(seconds), tf.float64)
        rounds = tf.while_loop(lambda _: tf.timestamp() < end, lambda n: [n + 1], [tf.constant(0)])
        with tf.control_dependencies(rounds):
            return {"seconds": tf.identity(seconds)}

    save(path, serving_default=serve)


def broken(path):
    os.makedirs(path)
    pathlib.Path(path, "saved_model.pb").write_bytes(b"this is no SavedModel\n")


MODELS = [(half_plus_three, 123), (half_plus_three, 124), *((make, 1) for make in (demo, types, image, echo, keras, slow, broken))]


def make_all(out):
    """Makes what is missing under `out`, each model whole or not at all."""
    missing = [(make, out / make.__name__ / str(version)) for make, version in MODELS]
    missing = [(make, path) for make, path in missing if not path.exists()]
    if not missing:
        print(f"all models are in {out}")
        return
    _import_tensorflow()
    for make, path in missing:
        start = time.monotonic()
        print(f"making {path}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".making-") as scratch:
            make(f"{scratch}/model")
            try:
                os.rename(f"{scratch}/model", path)
            except OSError:
                if not path.exists():  # another run may have just made it
                    raise
        print(f"  done in {time.monotonic() - start:.1f} s", flush=True)


def _import_tensorflow():
    global tf
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # these models gain nothing from a GPU
    print("importing TensorFlow ...", flush=True)
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    make_all(pathlib.Path(sys.argv[1]))
