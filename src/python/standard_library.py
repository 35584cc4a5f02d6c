"""Submodules of the standard library that scripts use without importing them.

A script that says `import urllib` and uses `urllib.request` works if anything else has imported that submodule. In
Amazon's container gunicorn, gevent, falcon and requests did. Here a submodule is imported when it is used: importing all
of them takes longer than starting Python.
"""

import functools
import importlib
import importlib.util
import os
import sys

# Measured with the versions of the older images (gunicorn 20.1, falcon 3.1) and of the newest. Left out are submodules
# that their packages import themselves, such as those of asyncio, html, json and multiprocessing.
_SUBMODULES = {
    "concurrent": "futures",
    "email": "base64mime charset encoders errors feedparser header iterators message parser quoprimime utils",
    "encodings": "idna",
    "http": "client cookiejar cookies",
    "importlib": "abc machinery metadata readers resources util",
    "logging": "config handlers",
    "urllib": "error parse request response",
    "xml": "etree parsers",
    "xml.etree": "ElementPath ElementTree",
    "xml.parsers": "expat",
}


def provide_submodules():
    """Makes the packages import a submodule at its first use."""
    folder = os.path.dirname(os.__file__)
    for package, names in _SUBMODULES.items():
        # A file of the archive may hide a package that has its name. It must not run before the script.
        top = package.partition(".")[0]
        spec = None if top in sys.modules else importlib.util.find_spec(top)
        if spec is None or (spec.origin or "").startswith(folder):
            vars(importlib.import_module(package))["__getattr__"] = functools.partial(_submodule, package, names.split())


def _submodule(package, names, name):
    if name in names:
        return importlib.import_module(f"{package}.{name}")
    raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules.get(package))
