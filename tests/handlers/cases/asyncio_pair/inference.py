"""The pair, with an event loop of its own that it keeps, and a child process that it waits for."""

import asyncio
from asyncio.subprocess import PIPE

loop = asyncio.new_event_loop()


async def upper(text):
    process = await asyncio.create_subprocess_exec("tr", "a-z", "A-Z", stdin=PIPE, stdout=PIPE)
    out, _ = await process.communicate(text)
    return b"%s %d" % (out, process.returncode)


def input_handler(data, context):
    return loop.run_until_complete(upper(data.read()))


def output_handler(response, context):
    return response.content, "text/plain"
