"""The pair, with an event loop of its own that is kept, and a child process that it waits for."""
import asyncio

loop = asyncio.new_event_loop()


async def _upper(text):
    process = await asyncio.create_subprocess_exec(
        "tr", "a-z", "A-Z", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate(text)
    return out, process.returncode


def input_handler(data, context):
    out, code = loop.run_until_complete(_upper(data.read()))
    return b"%s %d" % (out, code)


def output_handler(response, context):
    return response.content, "text/plain"
