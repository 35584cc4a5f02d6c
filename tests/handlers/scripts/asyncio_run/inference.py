"""Runs coroutines inside a handler."""
import asyncio
import json


async def _double(number, started, all_started):
    started.append(number)
    if len(started) == 3:
        all_started.set()
    await all_started.wait()
    return 2 * number


async def _work(numbers):
    started, all_started = [], asyncio.Event()
    return await asyncio.gather(*(_double(number, started, all_started) for number in numbers))


def handler(data, context):
    return json.dumps(asyncio.run(_work(json.loads(data.read())))), "application/json"
