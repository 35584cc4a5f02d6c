"""Each call sets an event loop of its own, waits, and runs something in the loop that is set."""
import asyncio
import time


async def answer(text):
    await asyncio.sleep(0.002)
    return text


def handler(data, context):
    text = data.read().decode()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        time.sleep(0.002)
        return asyncio.get_event_loop().run_until_complete(answer(text)), "text/plain"
    finally:
        loop.close()
