"""Awaits what a function returns, if that is awaitable: `async def` works for all functions of a script.

The main thread has one event loop, which stays open between calls, so that a session made in one call can be used in
the next. `loop_thread.py` replaces `run` where calls run on several threads, `greenlets.py` where they are greenlets.

asyncio is imported when it is needed: most scripts do without, and gevent has to patch the library before that.
"""

import atexit
import collections.abc
import contextlib
import os
import sys
import threading
import warnings

# What cancelled coroutines get to clean up, before they are left behind.
CLEANUP_SECONDS = 1

# The usual results, which need no further look.
_PLAIN = frozenset((tuple, str, bytes, list, dict, type(None)))

_thread = threading.local()
_loops = []


def result_of(returned):
    """Returns what a function returned, or the result of awaiting it."""
    if type(returned) in _PLAIN or not isinstance(returned, collections.abc.Awaitable):
        return returned
    value, error = run(returned)
    if error is None:
        return value
    try:
        raise error
    finally:
        # The traceback refers to this frame.
        del error


async def outcome(awaitable):
    """Returns the result and the exception of an awaitable, one of which is None. The exception must not reach the
    loop: some, such as SystemExit, would end it."""
    try:
        return await awaitable, None
    except BaseException as error:
        return None, error


class Steps(collections.abc.Coroutine):
    """A coroutine whose steps go through the method `step`, which subclasses define."""

    def __init__(self, coroutine):
        self._coroutine = coroutine

    def send(self, value):
        return self.step(self._coroutine.send, value)

    def throw(self, *error):
        return self.step(self._coroutine.throw, *error)

    def close(self):
        self._coroutine.close()

    def __await__(self):
        return self


def exit_fork():
    """Ends a forked process that has left its coroutine's step. It must not go on with others' coroutines."""
    print("sagemaker-tfs-python: a forked process left its coroutine; the process ends", file=sys.stderr)
    os._exit(1)


def _run_on_this_thread(awaitable):
    loop = getattr(_thread, "loop", None)
    if loop is None or loop.is_closed():
        loop = _thread.loop = new_loop()
    task = loop.create_task(outcome(awaitable))
    try:
        loop.run_until_complete(task)
    except BaseException:
        # A signal handler raised, or the script stopped the loop.
        if not task.done():
            _cancel(loop, [task])
            close(awaitable)
            raise
    return task.result()


run = _run_on_this_thread


def new_loop():
    """The loop that the script has made for this thread, if it can be used, or a new one."""
    import asyncio

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loop = asyncio.get_event_loop()
    except RuntimeError:
        loop = None
    if loop is None or loop.is_closed() or loop.is_running():
        loop = asyncio.new_event_loop()
    _loops.append(loop)
    return loop


def close(awaitable):
    """Closes a coroutine that may not have started; otherwise Python warns that it was never awaited."""
    with contextlib.suppress(Exception):
        awaitable.close()


def _cancel(loop, tasks):
    import asyncio

    for task in tasks:
        task.cancel()
    with contextlib.suppress(Exception):
        loop.run_until_complete(asyncio.wait(tasks, timeout=CLEANUP_SECONDS))


def _close_loops():
    for loop in _loops:
        if loop.is_closed() or loop.is_running():
            continue
        import asyncio

        tasks = asyncio.all_tasks(loop)
        if tasks:
            _cancel(loop, tasks)
        with contextlib.suppress(Exception):
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


# Before the script is imported, so the functions that the script registers run first and may still use the loop.
atexit.register(_close_loops)
