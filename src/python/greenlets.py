"""Runs calls as greenlets on the main thread, in the worker class `gevent` when gevent is installed.

This module is compiled into sagemaker-tfs-python. `runtime.py` calls `install` before it imports the script. From then
on, only the script's own computing may block the thread: sockets wait in `wait`, where the hub runs other greenlets.
"""

import contextvars
import functools
import logging
import os
import sys
import threading
import warnings

import sagemaker_tfs_awaiting as awaiting

log = logging.getLogger("sagemaker_tfs")

# Far more than the exceptions from outside that can reach one wait. A wait that always fails must not retry for ever.
MAX_INTERRUPTIONS = 1000

# Places of greenlets that run no call. The place of a call is the number of its channel.
HUB = -1
OTHER = -2

_gevent = None
# The hub that a forked process inherited from its parent. Kept, because freeing the hub would run it again.
_left_hubs = []
# Places of the hub and of running calls.
_places = {}
# Called at each switch with the place of the greenlet that runs next.
_note_switch = None
# The context variables that the import of the script left.
_context = None
# asyncio's running loop of each greenlet that is switched out.
_running_loops = {}
# Runs the coroutines of all calls.
_coroutines = None


def install():
    """Patches the standard library, as gunicorn's gevent worker does. Returns False if gevent is missing or broken."""
    global _gevent
    try:
        import gevent.monkey
    except ImportError:
        return False
    except Exception:
        log.warning("gevent cannot be imported", exc_info=True)
        return False
    gevent.monkey.patch_all()
    # gevent's subprocess forks in Python. With fork support, gRPC would restart its threads in the child and abort.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    import gevent.event
    import gevent.exceptions
    import gevent.socket

    _gevent = gevent
    # The server got the same Ctrl-C and decides when this process ends, so the hub need not print KeyboardInterrupt.
    gevent.get_hub().NOT_ERROR += (KeyboardInterrupt,)
    os.register_at_fork(after_in_child=_leave_hub)
    _own_event_loops()
    _watch_switches()
    return True


def install_grpc():
    """Makes gRPC wait in the hub. Otherwise its waiting would block the thread, and its own threads would never run."""
    try:
        from grpc.experimental import gevent as support

        support.init_gevent()
    except Exception:
        log.warning("cannot make grpc work with gevent; calls that use grpc may hang", exc_info=True)


def check_event_loops():
    """Warns of event loops that wait outside the hub. Called when the script is loaded."""
    import asyncio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policy = type(asyncio.get_event_loop_policy())
        is_usual = issubclass(policy, asyncio.DefaultEventLoopPolicy)
    if not is_usual:
        log.warning(
            "the event loops of %s do not work with gevent: coroutines may hang; "
            "set SAGEMAKER_GUNICORN_WORKER_CLASS=sync or gthread, or leave gevent out",
            policy.__module__,
        )


def _leave_hub():
    """Gives a forked process a new hub. In a copy of the parent's hub, other requests' calls would go on a second time,
    and the process would take new calls from the channels."""
    from gevent._hub_local import set_hub, set_loop

    global _note_switch
    _note_switch = None
    hub = _gevent.get_hub()
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
            # The script caused this: a signal handler raised, or a timeout of an earlier call fired. The hub has
            # printed the exception. The wait must go on, because a frame that is half read must be read to its end.
            continue
    raise OSError(f"cannot wait for file descriptor {descriptor}")


def serve(channels, note_switch):
    """Serves calls until all channels are closed.

    `channels` is a list of `((number, file descriptor), function that serves one call)`. `note_switch` is called at
    each switch with the place of the greenlet that runs next.
    """
    global _note_switch, _context
    awaiting.run = _run_coroutine
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
                # The script has closed all channels. The server will start another process.
                return
            except BaseException:
                # A signal handler raised while no call was running; the hub throws that into the main greenlet.
                continue
    if _coroutines is not None:
        _coroutines.end()


def _begin(number, watcher, serve_call, closed):
    """Starts a greenlet for a call that has arrived. The hub calls this."""
    watcher.stop()
    if greenlet.gettrace() is None:
        # The script removed the trace function, or a signal handler raised in it and made greenlet remove it.
        greenlet.settrace(_switched)
    # Each call has a new greenlet, as each connection had in gunicorn, so data that a call leaves with its "thread"
    # (thread-local data, timeouts) never reaches the next call. The greenlet runs at once rather than on the hub's next
    # round: a script may kill greenlets that have not started, and the call would get no answer.
    call = _gevent.Greenlet(_run, number, watcher, serve_call, closed)
    call.gr_context = _context.copy()
    _places[call] = number
    call.switch()


def _run(number, watcher, serve_call, closed):
    """Serves a call and then waits for the next call of its channel. The body of a call's greenlet."""
    goes_on = False
    # gevent gives each greenlet an identity, but calls run on the main thread, which asyncio and signal check.
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
    """Keeps an event loop that a call sets for that call. A call that sets none gets the main thread's loop from
    `asyncio.get_event_loop()`, and calls take turns in running that loop."""
    import asyncio

    policy = asyncio.events
    policy = getattr(policy, "BaseDefaultEventLoopPolicy", None) or policy._BaseDefaultEventLoopPolicy

    # The loop of each real thread. A call's loop is stored in its greenlet and goes with it.
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
        # Python creates the main thread's loop on first use. All calls share that loop, even when a call creates it.
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


def _run_coroutine(awaitable):
    """Awaits what a call returned, in the loop of all calls: while it waits, other calls run, and what a call leaves in
    the loop, such as a session, can be used by the next."""
    global _coroutines
    if _coroutines is None or _coroutines.has_ended:
        _coroutines = _Coroutines()
    return _coroutines.run(awaitable, _places.get(greenlet.getcurrent(), OTHER))


class _Coroutines:
    """An event loop in a greenlet of its own."""

    def __init__(self):
        self.loop = awaiting.new_loop()
        self.waiting = set()
        self.has_ended = False
        self.greenlet = _gevent.spawn(self._serve)

    def run(self, awaitable, place):
        """Awaits in the loop, and returns as `awaiting.outcome` does. `place` is the place of the call."""
        done = _gevent.event.AsyncResult()
        steps = _Steps(awaiting.outcome(awaitable), place)
        tasks = []

        def start():
            tasks.append(self.loop.create_task(steps))
            tasks[0].add_done_callback(finish)

        def finish(task):
            try:
                done.set(task.result())
            except BaseException as error:
                # Cancelled before its first step, by another call.
                awaiting.close(awaitable)
                done.set((None, error))

        def cancel():
            for task in tasks:
                task.cancel()

        self.waiting.add(done)
        try:
            self.loop.call_soon_threadsafe(start, context=contextvars.copy_context())
            return done.get()
        except BaseException:
            # The call is ended from outside, or the loop has ended.
            if self.has_ended or self.loop.is_closed():
                steps.close()
                awaiting.close(awaitable)
            else:
                self.loop.call_soon_threadsafe(cancel)
            raise
        finally:
            self.waiting.discard(done)

    def _serve(self):
        # As for the greenlets of calls.
        identity = threading.get_ident()
        threading._active[identity] = threading.main_thread()
        try:
            for _ in range(MAX_INTERRUPTIONS):
                if self.has_ended or self.loop.is_closed():
                    break
                try:
                    self.loop.run_forever()
                except _gevent.GreenletExit:
                    break
                except BaseException:
                    # A signal handler raised between two steps.
                    continue
        finally:
            self.has_ended = True
            threading._active.pop(identity, None)
            for done in self.waiting:
                done.set_exception(RuntimeError("the event loop ended before the coroutine"))

    def end(self):
        """Stops the loop, so that functions registered for the end of the process can use it."""
        self.has_ended = True
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
        self.greenlet.join(timeout=awaiting.CLEANUP_SECONDS)


class _Steps(awaiting.Steps):
    """A coroutine whose steps count as computing of its call."""

    def __init__(self, coroutine, place):
        super().__init__(coroutine)
        self._place = place

    def step(self, function, *arguments):
        current = greenlet.getcurrent()
        _places[current] = self._place
        _note_switch(self._place)
        try:
            return function(*arguments)
        finally:
            _places.pop(current, None)
            if _note_switch is None:
                awaiting.exit_fork()
            _note_switch(OTHER)


def _watch_switches():
    global greenlet, _get_running_loop, _set_running_loop
    import greenlet
    from asyncio import _get_running_loop, _set_running_loop

    greenlet.settrace(_switched)


def _switched(_, greenlets):
    """Notes a switch; greenlet calls this after each. asyncio stores the running loop in the thread. This function
    moves it to the greenlet, so that each call can run a loop."""
    origin, target = greenlets
    if target in _left_hubs:
        # In a forked process, the greenlet that forked has finished. The parent's hub must not run here.
        os._exit(1)
    if _note_switch is not None:
        _note_switch(_places.get(target, OTHER))
    running, next_running = _get_running_loop(), _running_loops.pop(target, None)
    if running is not None:
        _running_loops[origin] = running
    if running is not next_running:
        _set_running_loop(next_running)
