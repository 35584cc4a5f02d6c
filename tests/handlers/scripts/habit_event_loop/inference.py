"""Runs coroutines in the loop of asyncio.get_event_loop(), as it is in a call and as it was at import."""
import asyncio
import time

at_import = asyncio.get_event_loop()


async def _slowly(text):
    await asyncio.sleep(0.002)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, time.sleep, 0.001)
    return text


async def _both(text):
    first, second = await asyncio.gather(_slowly(text), _slowly(text))
    assert first == second
    return first


def handler(data, context):
    body = data.read().decode()
    in_call = asyncio.get_event_loop()
    answers = {loop.run_until_complete(_both(body)) for loop in (at_import, in_call)}
    return "".join(answers), "text/plain"
