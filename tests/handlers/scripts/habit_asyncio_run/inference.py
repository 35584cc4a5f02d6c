"""Runs coroutines with asyncio.run, each call in a loop of its own, with a server and clients in it."""
import asyncio


async def _echo(reader, writer):
    writer.write(await reader.read())
    writer.close()


async def _work(body):
    async with await asyncio.start_server(_echo, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection("localhost", server.sockets[0].getsockname()[1])
        writer.write(body)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
    return answer


def handler(data, context):
    return asyncio.run(_work(data.read())), "text/plain"
