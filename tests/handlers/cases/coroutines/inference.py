"""Functions that are coroutines: handler with SINGLE, otherwise a pair."""

import asyncio
import atexit
import contextvars
import gc
import os
import signal
import threading
import warnings

warnings.simplefilter("always")

request_body = contextvars.ContextVar("request_body", default=None)
# They belong to the loop that first waits for them.
lock, few = asyncio.Lock(), asyncio.Semaphore(2)


class Session:
    """Belongs to the loop that runs when it is made, as those of libraries do."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.queue = asyncio.Queue()
        self.task = asyncio.create_task(self.serve())

    async def serve(self):
        while True:
            body, answer = await self.queue.get()
            await asyncio.sleep(0.001)
            answer.set_result(body)

    async def echo(self, body):
        assert asyncio.get_running_loop() is self.loop, "another loop than at the first call"
        answer = self.loop.create_future()
        self.queue.put_nowait((body, answer))
        return await asyncio.wait_for(answer, 60)


session = None


class Refusal(Exception):
    status_code = 422


async def echo(body):
    global session
    if session is None:
        session = Session()
    request_body.set(body)
    async with few, lock:
        await asyncio.sleep(0.001)
    first, second = await asyncio.gather(session.echo(body), asyncio.to_thread(str.strip, body))
    assert first == second == request_body.get(), (first, second, request_body.get())
    assert threading.current_thread() is threading.main_thread() or os.environ.get("THREADS")
    return first


async def cancel_itself(body):
    asyncio.current_task().cancel()
    await asyncio.sleep(60)


async def alarm(body):
    def too_slow(number, frame):
        raise TimeoutError("the limit has passed")

    signal.signal(signal.SIGALRM, too_slow)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    while True:
        pass


async def wait_for(body):
    await asyncio.wait_for(asyncio.sleep(60), 0.01)


async def leave_behind(body):
    asyncio.create_task(asyncio.sleep(600))
    return body


async def fork(body):
    child = os.fork()
    if child == 0:
        await asyncio.sleep(0)
        return "the child's answer"
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1, status
    return body


async def end_the_loop(body):
    loop = asyncio.get_running_loop()

    def close():
        # Once it has stopped.
        threading.Thread(target=lambda: [loop.is_running() or loop.close() for _ in iter(loop.is_closed, True)]).start()

    loop.call_soon(close)
    loop.stop()
    await asyncio.sleep(60)


async def exit_in_a_task(body):
    async def leave():
        raise SystemExit(9)

    task = asyncio.create_task(leave())
    await asyncio.sleep(0.001)
    return f"{body} {type(task.exception()).__name__}"


async def sees_variables(body):
    """What the call has set before it returned the coroutine."""
    return request_body.get()


async def hang(body):
    await asyncio.sleep(600)


async def spin(body):
    while True:
        pass


async def stop_the_loop(body):
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.001)
    return body


arrived = 0


async def meet(body):
    """Waits until three calls are here."""
    global arrived
    arrived += 1
    while arrived < 3:
        await asyncio.sleep(0.001)
    return str(id(asyncio.get_running_loop()))


async def cancel_others(body):
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    return str(len(others))


async def answer(body):
    if body.startswith("raise "):
        await asyncio.sleep(0)
        raise eval(body.removeprefix("raise "))
    if body.startswith("run "):
        return await globals()[body.removeprefix("run ")](body)
    return await echo(body)


class Later:
    """An awaitable that is no coroutine."""

    def __init__(self, value):
        self.value = value

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return self.value


if os.environ.get("POLICY"):

    class Policy(type(asyncio.get_event_loop_policy()).__base__):
        _loop_factory = asyncio.SelectorEventLoop

    asyncio.set_event_loop_policy(Policy())

if os.environ.get("SINGLE"):

    def handler(data, context):
        request_body.set(f"set before {context.content_length}")
        return with_headers(data.read().decode())

    async def with_headers(body):
        return await answer(body), "text/plain", {"X-Async": "yes"}

    @atexit.register
    def check_loop():
        if "THREADS" in os.environ and session is not None and not session.loop.is_running():
            print("the loop has ended before the functions for the end of the process")

else:

    async def input_handler(data, context):
        return await answer(data.read().decode())

    def output_handler(response, context):
        gc.collect()
        return Later((response.content, "text/plain", {"X-Async": "yes"}))
