"""Needs the main thread: signal handlers set at import and in a call, and a limit of its own by SIGALRM."""
import signal

heard = []
signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(signal.Signals(number).name))
signal.signal(signal.SIGTERM, lambda number, frame: heard.append("SIGTERM"))


class TooSlow(Exception):
    pass


def _too_slow(number, frame):
    raise TooSlow("the limit has passed")


def input_handler(data, context):
    if data.read() == b"alarm":
        signal.signal(signal.SIGALRM, _too_slow)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            while True:
                pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    signal.raise_signal(signal.SIGUSR1)
    return ",".join(heard)


def output_handler(response, context):
    return response.content, "text/plain"
