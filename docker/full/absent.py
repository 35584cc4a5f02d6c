"""Only TensorFlow's protocol buffers, for tensorflow-serving-api: this image has no TensorFlow."""


def __getattr__(name):
    # Python asks for names like __path__ itself, and for the folders before it imports them.
    if name.startswith("__") or name in ("core", "compiler"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise ModuleNotFoundError(
        f"tensorflow.{name} is not here: the image has only TensorFlow's protocol buffers (tensorflow.core). "
        "For TensorFlow itself, add tensorflow-cpu to code/requirements.txt or code/lib",
        name="tensorflow",
    )
