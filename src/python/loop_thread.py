"""Runs the coroutines of all calls in one event loop, on a thread of its own, in a worker whose calls run on threads.

What belongs to a loop, such as a session, a lock or a semaphore, can then be used by all calls. `runtime.py` calls
`install` when the script is loaded.
"""

import atexit
import contextlib
import os
import sys
import threading

import sagemaker_tfs_awaiting as awaiting

# Far more than the exceptions that a script's own tasks raise in the loop. A loop that always fails must not retry for
# ever.
MAX_INTERRUPTIONS = 1000

_lock = threading.Lock()
_first_loop = None
_thread = None


def install():
    """Makes later calls await in one loop: the one that the script has made for the main thread, if there is any. Runs
    on the main thread."""
    global _first_loop
    # A script that has not imported asyncio has made no loop.
    if "asyncio" in sys.modules:
        _first_loop = awaiting.new_loop()
    awaiting.run = _run


def _run(awaitable):
    global _thread
    with _lock:
        if _thread is None or not _thread.is_usable():
            is_first = _thread is None and _first_loop is not None
            _thread = _LoopThread(_first_loop if is_first else awaiting.new_loop())
        thread = _thread
    return thread.run(awaitable)


class _LoopThread:
    def __init__(self, loop):
        self.loop = loop
        self.waiting = set()
        self.has_ended = False
        self.thread = threading.Thread(target=self._serve, name="event-loop", daemon=True)
        self.thread.start()

    def is_usable(self):
        return not (self.has_ended or self.loop.is_closed())

    def run(self, awaitable):
        """Awaits in the loop, with the context variables of the call, and returns as `awaiting.outcome` does."""
        import asyncio
        import concurrent.futures

        steps = _Steps(awaiting.outcome(awaitable))
        done = None
        try:
            done = asyncio.run_coroutine_threadsafe(steps, self.loop)
            self.waiting.add(done)
            if self.has_ended:
                self._fail()
            return done.result()
        except concurrent.futures.CancelledError as error:
            # Cancelled before its first step, by another call.
            awaiting.close(awaitable)
            return None, error
        except BaseException:
            # A signal handler raised, or the loop has ended.
            if self.is_usable() and done is not None:
                done.cancel()
            else:
                steps.close()
                awaiting.close(awaitable)
            raise
        finally:
            self.waiting.discard(done)

    def _serve(self):
        try:
            for _ in range(MAX_INTERRUPTIONS):
                if not self.is_usable():
                    break
                # It ends when the script stops it, or when a task of the script's own raises, for example SystemExit.
                with contextlib.suppress(BaseException):
                    self.loop.run_forever()
        finally:
            self.has_ended = True
            self._fail()

    def _fail(self):
        for done in list(self.waiting):
            # It may be done.
            with contextlib.suppress(Exception):
                done.set_exception(RuntimeError("the event loop ended before the coroutine"))

    def end(self):
        self.has_ended = True
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(awaiting.CLEANUP_SECONDS)


class _Steps(awaiting.Steps):
    """A coroutine that ends a process which it has forked and which returns from the coroutine's step: there, the loop
    would run the coroutines of other calls a second time."""

    def __init__(self, coroutine):
        super().__init__(coroutine)
        self._process = os.getpid()

    def step(self, function, *arguments):
        try:
            return function(*arguments)
        finally:
            if os.getpid() != self._process:
                awaiting.exit_fork()


def _end():
    if _thread is not None:
        _thread.end()


# Runs after the script's functions and before `awaiting.py` closes the loops.
atexit.register(_end)
