"""Says whether the standard library was patched before this was imported, and finds its thread-local data of then."""

import os
import socket
import sys
import threading
import time


def is_patched():
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and monkey.is_module_patched("socket") and "gevent" in socket.socket.__module__


local = threading.local()
local.patched = is_patched()
busy = False


def alone(result):
    global busy
    assert threading.current_thread() is threading.main_thread()
    assert not busy, "two calls at a time"
    busy = True
    time.sleep(0.001)
    busy = False
    return result


if os.environ.get("SINGLE"):
    at_import = is_patched()

    def handler(data, context):
        return f"{at_import} {is_patched()}", "text/plain"


def input_handler(data, context):
    return alone(data.read())


def output_handler(response, context):
    return alone(f"{response.text} {local.patched}"), "text/plain"
