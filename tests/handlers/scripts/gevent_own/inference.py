"""Uses gevent itself, and leaves things behind that would hit the next calls if they could."""
import gc
import os
import signal
import sys
import threading

import gevent
import gevent.event

resting = gevent.event.Event()


def _greenlet_exit():
    raise gevent.GreenletExit("gone")


def _killed():
    gevent.getcurrent().kill()


def _timeout():
    with gevent.Timeout(0.01, ValueError("too slow")):
        gevent.sleep(60)


def _leave_timeout():
    gevent.Timeout(0.01).start()


def _raise(number, frame):
    raise ValueError("the alarm is for nobody")


def _leave_alarm():
    signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, 0.01)


def _leave_interrupt():
    gevent.spawn_later(0.01, os.kill, os.getpid(), signal.SIGINT)


def _leave_exit():
    gevent.spawn(sys.exit, 3)
    threading.Thread(target=sys.exit, args=(4,)).start()


def _leave_failure():
    gevent.spawn(_raise, None, None)


def _leave_killer():
    resting.clear()
    gevent.spawn(_kill_all)


def _kill_all():
    resting.wait()
    current = gevent.getcurrent()
    gevent.killall([o for o in gc.get_objects() if isinstance(o, gevent.Greenlet) and o is not current], block=False)


def _rest():
    resting.set()
    gevent.sleep(0.05)


def handler(data, context):
    what = data.read().decode()
    globals()["_" + what]()
    return what, "text/plain"
