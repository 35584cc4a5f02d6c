"""Says where a module that a script misses comes from."""

import sys

# The modules that images of the flavor `full` have and others do not, and their packages on PyPI.
_PACKAGES = {
    "boto3": "boto3",
    "botocore": "botocore",
    "cloudpickle": "cloudpickle",
    "falcon": "falcon",
    "gevent": "gevent",
    "google": "protobuf (for google.protobuf)",
    "google.protobuf": "protobuf",
    "grpc": "grpcio",
    "numpy": "numpy",
    "pandas": "pandas",
    "requests": "requests",
    "sklearn": "scikit-learn",
    "tensorflow_serving": "tensorflow-serving-api",
}

# A name comes from the script. Real names are far shorter.
_MAX_NAME = 100


def hint(error):
    """Returns a line about the module that an exception, or one that led to it, did not find. Otherwise an empty text:
    also for a module inside of a package that is there, which another package does not bring."""
    try:
        name = _missing_module(error)
    except BaseException:
        # Reading an attribute of the exception fails.
        return ""
    if name is None:
        return ""
    places = "code/requirements.txt or code/lib"
    if name in _PACKAGES:
        return f"hint: the package {_PACKAGES[name]} is in images of the flavor full; or add it to {places}\n"
    if name.isidentifier() and name not in sys.stdlib_module_names:
        return f"hint: add the package that has the module {name} to {places}\n"
    return ""


def _missing_module(error):
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, ModuleNotFoundError):
            is_name = isinstance(error.name, str) and len(error.name) <= _MAX_NAME
            return str(error.name) if is_name else None
        seen.add(id(error))
        # As a traceback shows them: `raise ... from None` hides the context.
        context = None if error.__suppress_context__ else error.__context__
        error = context if error.__cause__ is None else error.__cause__
    return None
