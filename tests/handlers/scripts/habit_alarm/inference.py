"""Limits its own work with SIGALRM, whose handler it sets in each call."""
import signal


class TooSlow(Exception):
    pass


def _too_slow(number, frame):
    raise TooSlow()


def handler(data, context):
    body = data.read().decode()
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(600)
    try:
        sum(number * number for number in range(20_000))
    finally:
        signal.alarm(0)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        while True:
            pass
    except TooSlow:
        return body, "text/plain"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
