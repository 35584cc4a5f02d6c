"""Calls as greenlets on the main thread: the class `gevent` where the script's Python has gevent.

Compiled into sagemaker-tfs-python beside `runtime.py`, which calls `install` before the script is imported. Afterwards
nothing in this process may block the thread but the script's own computing: sockets wait in `wait`, for the hub runs
all other greenlets meanwhile.
"""

import functools
import logging
import os
import threading

log = logging.getLogger("sagemaker_tfs")

# Far more than the exceptions that can reach one wait from outside. What fails each time would be tried for ever.
MAX_INTERRUPTIONS = 1000

_gevent = None
_left_hubs = []


def install():
    """Patches the standard library, as gunicorn's worker did; whether there is a gevent to do so."""
    global _gevent
    try:
        import gevent.monkey
    except ImportError:
        return False
    except Exception:
        log.warning("gevent cannot be imported", exc_info=True)
        return False
    gevent.monkey.patch_all()
    # Programs are started by a fork in Python then, in which gRPC would start its threads anew and abort.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    import gevent.event
    import gevent.exceptions
    import gevent.socket

    _gevent = gevent
    # Ctrl-C: when to end is for the server to say, which got the same.
    gevent.get_hub().NOT_ERROR += (KeyboardInterrupt,)
    os.register_at_fork(after_in_child=_leave_hub)
    _share_event_loop()
    _keep_running_loops()
    return True


def install_grpc():
    """Lets gRPC wait in the hub. Without this its waiting blocks the thread, and its own threads never run."""
    try:
        from grpc.experimental import gevent as support

        support.init_gevent()
    except Exception:
        log.warning("grpc cannot work with gevent; calls that use it may hang", exc_info=True)


def _leave_hub():
    """A forked process gets a hub of its own. In a copy of ours the calls of other requests would go on twice, and new
    ones would be taken from the channels."""
    from gevent._hub_local import set_hub, set_loop

    hub = _gevent.get_hub()
    # Kept: it must not run again to be cleaned up.
    _left_hubs.append(hub)
    set_hub(None)
    set_loop(None)
    hub.loop.destroy()


def wait(descriptor, for_writing):
    """Runs other greenlets until the descriptor is ready."""
    function = _gevent.socket.wait_write if for_writing else _gevent.socket.wait_read
    for _ in range(MAX_INTERRUPTIONS):
        try:
            return function(descriptor)
        except BaseException:
            # From the script: a signal's handler that raised, a timeout that it left running. The hub has printed
            # what it could not give to the script, and a frame that is half read must be read to its end.
            continue
    raise OSError(f"waiting for file descriptor {descriptor} fails")


def serve(channels):
    """Serves calls until all channels are closed. `channels`: file descriptors, each with what serves one call there."""
    closed = [_gevent.event.Event() for _ in channels]
    for (descriptor, serve_call), event in zip(channels, closed):
        watcher = _gevent.get_hub().loop.io(descriptor, 1)
        watcher.start(_begin, watcher, serve_call, event)
    channels.clear()
    for event in closed:
        while not event.is_set():
            try:
                event.wait()
            except _gevent.exceptions.LoopExit:
                # The script has closed all channels. The server starts another process.
                return
            except BaseException:
                # The hub throws into the main greenlet what a signal's handler raised while no call was running.
                continue


def _begin(watcher, serve_call, closed):
    """In the hub: a call has arrived."""
    watcher.stop()
    # A greenlet for each call, as gunicorn had one for each connection: nothing that a call leaves with its "thread"
    # (thread-local data, timeouts) reaches the next. It runs at once, not when the hub comes to it: a script may kill
    # greenlets that have not started, and nobody would answer the call.
    _gevent.Greenlet(_run, watcher, serve_call, closed).switch()


def _run(watcher, serve_call, closed):
    goes_on = False
    # It is the main thread, and what asks for that (asyncio, signal) must find it so.
    identity = threading.get_ident()
    threading._active[identity] = threading.main_thread()
    try:
        goes_on = serve_call()
    finally:
        threading._active.pop(identity, None)
        if goes_on:
            watcher.start(_begin, watcher, serve_call, closed)
        else:
            watcher.close()
            closed.set()


def _share_event_loop():
    """`asyncio.get_event_loop()` gives all calls the loop of the main thread. They take turns in running it."""
    import asyncio

    policy = asyncio.events
    policy = getattr(policy, "BaseDefaultEventLoopPolicy", None) or policy._BaseDefaultEventLoopPolicy

    class Local(_gevent.monkey.get_original("threading", "local")):
        _loop = None
        _set_called = False

    policy._Local = Local
    run = asyncio.BaseEventLoop.run_until_complete

    @functools.wraps(run)
    def run_until_complete(self, future):
        with vars(self).setdefault("_sagemaker_tfs_turn", threading.RLock()):
            return run(self, future)

    asyncio.BaseEventLoop.run_until_complete = run_until_complete


def _keep_running_loops():
    """asyncio notes with the thread that a loop runs: noted with the greenlet, calls may run a loop each."""
    import greenlet
    from asyncio import _get_running_loop, _set_running_loop

    noted = {}

    def switched(_, greenlets):
        origin, target = greenlets
        running, next_running = _get_running_loop(), noted.pop(target, None)
        if running is not None:
            noted[origin] = running
        if running is not next_running:
            _set_running_loop(next_running)

    greenlet.settrace(switched)
