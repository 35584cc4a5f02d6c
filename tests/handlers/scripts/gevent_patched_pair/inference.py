"""Says whether the standard library was patched before this was imported, and finds its thread-local data of then."""
import sys
import threading
import time

local = threading.local()
monkey = sys.modules.get("gevent.monkey")
local.patched = str(monkey is not None and monkey.is_module_patched("socket"))
busy = False


def _alone(first):
    global busy
    if busy:
        raise RuntimeError("two calls at a time")
    busy = True
    time.sleep(0.001)
    busy = False
    return first


def input_handler(data, context):
    return _alone(data.read())


def output_handler(response, context):
    main = threading.current_thread() is threading.main_thread()
    return _alone("%s %s %s" % (response.text, local.patched, main)), "text/plain"
