"""Says whether the standard library was patched before this was imported."""
import socket
import sys


def _is_patched():
    monkey = sys.modules.get("gevent.monkey")
    return str(monkey is not None and monkey.is_module_patched("socket") and "gevent" in socket.socket.__module__)


at_import = _is_patched()


def handler(data, context):
    return at_import + " " + _is_patched(), "text/plain"
