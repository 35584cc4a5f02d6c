"""Calls as greenlets on the main thread: the class `gevent` where the script's Python has gevent.

Compiled into sagemaker-tfs-python beside `runtime.py`, which calls `install` before the script is imported. Afterwards
nothing in this process may block the thread but the script's own computing: sockets wait in `wait`, for the hub runs
all other greenlets meanwhile.
"""

import contextvars
import functools
import logging
import os
import sys
import threading

log = logging.getLogger("sagemaker_tfs")

# Far more than the exceptions that can reach one wait from outside. What fails each time would be tried for ever.
MAX_INTERRUPTIONS = 1000

# Places of greenlets that run no call. The place of a call is the number of its channel.
HUB = -1
OTHER = -2

_gevent = None
_left_hubs = []
# Places of the hub and of running calls.
_places = {}
# Called at each switch with the place of the greenlet that gets the thread.
_note_switch = None
# The context variables as the import of the script left them.
_context = None
# asyncio's running loop of each greenlet that is switched out.
_running_loops = {}


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
    _own_event_loops()
    _watch_switches()
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

    global _note_switch
    _note_switch = None
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


def serve(channels, note_switch):
    """Serves calls until all channels are closed.

    `channels`: number and file descriptor of each, with the function that serves one call. `note_switch` is called at each
    switch with the place of the greenlet that gets the thread.
    """
    global _note_switch, _context
    _context = contextvars.copy_context()
    hub = _gevent.get_hub()
    _places[hub] = HUB
    _note_switch = note_switch
    closed = [_gevent.event.Event() for _ in channels]
    for ((number, descriptor), serve_call), event in zip(channels, closed):
        watcher = hub.loop.io(descriptor, 1)
        watcher.start(_begin, number, watcher, serve_call, event)
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


def _begin(number, watcher, serve_call, closed):
    """In the hub: a call has arrived."""
    watcher.stop()
    if greenlet.gettrace() is None:
        # The script removed it, or a signal handler raised in it, which makes greenlet remove it.
        greenlet.settrace(_switched)
    # A greenlet for each call, as gunicorn had one for each connection: nothing that a call leaves with its "thread"
    # (thread-local data, timeouts) reaches the next. It runs at once, not when the hub comes to it: a script may kill
    # greenlets that have not started, and nobody would answer the call.
    call = _gevent.Greenlet(_run, number, watcher, serve_call, closed)
    call.gr_context = _context.copy()
    _places[call] = number
    call.switch()


def _run(number, watcher, serve_call, closed):
    goes_on = False
    # It is the main thread, and what asks for that (asyncio, signal) must find it so.
    identity = threading.get_ident()
    threading._active[identity] = threading.main_thread()
    try:
        goes_on = serve_call()
    finally:
        threading._active.pop(identity, None)
        _places.pop(greenlet.getcurrent(), None)
        if goes_on:
            watcher.start(_begin, number, watcher, serve_call, closed)
        else:
            watcher.close()
            closed.set()


def _own_event_loops():
    """A loop that a call sets is its own. Without one, `asyncio.get_event_loop()` gives it the loop of the main thread,
    and calls take turns in running that."""
    import asyncio

    policy = asyncio.events
    policy = getattr(policy, "BaseDefaultEventLoopPolicy", None) or policy._BaseDefaultEventLoopPolicy

    # For each real thread. Greenlets of calls keep their loops themselves, for no longer than they live.
    class Local(_gevent.monkey.get_original("threading", "local")):
        _set_called = False
        _shared = None

        @property
        def _loop(self):
            own = vars(greenlet.getcurrent()).get("_sagemaker_tfs_loop")
            return self._shared if own is None else own

        @_loop.setter
        def _loop(self, loop):
            current = greenlet.getcurrent()
            if current in _places:
                vars(current)["_sagemaker_tfs_loop"] = loop
            else:
                self._shared = loop

    policy._Local = Local
    get_event_loop = policy.get_event_loop
    run = asyncio.BaseEventLoop.run_until_complete

    @functools.wraps(get_event_loop)
    def get_event_loop_of_all(self):
        # Python creates the main thread's loop on first use. Created in a call, it must still be shared by all calls.
        if sys.version_info < (3, 14) and self._local._loop is None:
            if threading.current_thread() is threading.main_thread():
                self._local._shared = self.new_event_loop()
        return get_event_loop(self)

    @functools.wraps(run)
    def run_until_complete(self, future):
        with vars(self).setdefault("_sagemaker_tfs_turn", threading.RLock()):
            return run(self, future)

    policy.get_event_loop = get_event_loop_of_all
    asyncio.BaseEventLoop.run_until_complete = run_until_complete


def _watch_switches():
    global greenlet, _get_running_loop, _set_running_loop
    import greenlet
    from asyncio import _get_running_loop, _set_running_loop

    greenlet.settrace(_switched)


def _switched(_, greenlets):
    """Called by greenlet after each switch. asyncio keeps the running loop with the thread; kept with the greenlet, calls
    can run a loop each."""
    origin, target = greenlets
    if target in _left_hubs:
        # A forked process finished the greenlet that forked. Its parent's hub must not run here.
        os._exit(1)
    if _note_switch is not None:
        _note_switch(_places.get(target, OTHER))
    running, next_running = _get_running_loop(), _running_loops.pop(target, None)
    if running is not None:
        _running_loops[origin] = running
    if running is not next_running:
        _set_running_loop(next_running)
