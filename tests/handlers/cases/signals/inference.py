"""Needs the main thread: signal handlers set at import and in a call, and a limit of its own by SIGALRM."""

import signal

heard = []


def hear(number, frame):
    heard.append(signal.Signals(number).name)


signal.signal(signal.SIGUSR1, hear)
signal.signal(signal.SIGTERM, hear)


def too_slow(number, frame):
    raise TimeoutError("the limit has passed")


def input_handler(data, context):
    if data.read() == b"alarm":
        signal.signal(signal.SIGALRM, too_slow)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        while True:
            pass
    signal.raise_signal(signal.SIGUSR1)
    return ",".join(heard)


def output_handler(response, context):
    return response.content, "text/plain"
