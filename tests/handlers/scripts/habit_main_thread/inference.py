"""Needs the main thread: sets and hears a signal in each call."""
import os
import signal
import threading


def handler(data, context):
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("not on the main thread: %s" % threading.current_thread().name)
    heard = []
    signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    os.kill(os.getpid(), signal.SIGUSR2)
    sum(number * number for number in range(1000))
    if heard != [signal.SIGUSR2]:
        raise RuntimeError("heard: %s" % heard)
    return data.read(), "text/plain"
