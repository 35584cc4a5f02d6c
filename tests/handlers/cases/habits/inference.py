"""What scripts do that needs the main thread, or nothing between two lines. HABIT names the function that runs."""

import asyncio
import contextvars
import decimal
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import requests

# Threads, if calls ran on several, would change place all the time.
sys.setswitchinterval(1e-5)


def compute():
    sum(number * number for number in range(50_000))


current = None


def global_variable(body, context):
    global current
    current = body
    compute()
    return current


PATH = os.path.join(tempfile.mkdtemp(), "upload.txt")


def file(body, context):
    """The file always has the same name, as for libraries that want a path."""
    with open(PATH, "wb") as file:
        file.write(body)
    compute()
    with open(PATH, "rb") as file:
        return file.read()


def database():
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE request (body TEXT)")
    return connection


def write(connection, body):
    connection.execute("DELETE FROM request")
    connection.execute("INSERT INTO request VALUES (?)", (body,))
    connection.commit()


def read(connection):
    ((body,),) = connection.execute("SELECT body FROM request")
    return body


shared = database()


def sqlite(body, context):
    """The connection was made at import; sqlite3 refuses it to other threads."""
    write(shared, body)
    compute()
    return read(shared)


class Local(threading.local):
    def __init__(self):
        self.connection = database()


local = Local()


def thread_local(body, context):
    local.body = body
    write(local.connection, body)
    request = urllib.request.Request(context.rest_uri, local.body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.read() == body
    assert read(local.connection) == body
    return local.body


class TooSlow(Exception):
    pass


def too_slow(number, frame):
    raise TooSlow


def alarm(body, context):
    signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(600)
    try:
        compute()
    finally:
        signal.alarm(0)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        while True:
            pass
    except TooSlow:
        return body
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main_thread(body, context):
    assert threading.current_thread() is threading.main_thread()
    heard = []
    signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    os.kill(os.getpid(), signal.SIGUSR2)
    compute()
    assert heard == [signal.SIGUSR2], heard
    return body


loop_at_import = asyncio.get_event_loop()


async def slowly(body):
    await asyncio.sleep(0.002)
    await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.001)
    return body


async def twice(body):
    first, second = await asyncio.gather(slowly(body), slowly(body))
    assert first == second
    return first


def event_loop(body, context):
    """Uses the loop of asyncio.get_event_loop() as it is in a call, and as it was at import."""
    answers = {loop.run_until_complete(twice(body)) for loop in (loop_at_import, asyncio.get_event_loop())}
    return b"".join(answers)


def set_event_loop(body, context):
    """Waits between setting a loop and using the one that is set."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        time.sleep(0.002)
        return asyncio.get_event_loop().run_until_complete(slowly(body))
    finally:
        loop.close()


async def echo(reader, writer):
    writer.write(await reader.read())
    writer.close()


async def through_a_server(body):
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection("localhost", server.sockets[0].getsockname()[1])
        writer.write(body)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
    return answer


def asyncio_run(body, context):
    return asyncio.run(through_a_server(body))


decimal.getcontext().prec = 50
setting = contextvars.ContextVar("setting", default="none")
setting.set("import")
request_body = contextvars.ContextVar("request_body")


def context_variables(body, context):
    request_body.set(body)
    time.sleep(0.002)
    seen = (str(decimal.Decimal(1) / 3), setting.get())
    assert seen == ("0." + 50 * "3", "import"), seen
    return request_body.get()


session = requests.Session()


def session_at_import(body, context):
    response = session.post(context.rest_uri, data=body, timeout=60)
    response.raise_for_status()
    assert response.content == body
    return response.content


def processes(body, context):
    return subprocess.run(["cat"], input=body, stdout=subprocess.PIPE, check=True, timeout=60).stdout


pool = ThreadPoolExecutor(4)


def threads(body, context):
    return " ".join(pool.map(str.upper, body.decode().split())).lower()


forked = multiprocessing.get_context("fork")


def send_later(body, results):
    time.sleep(0.02)
    results.send(body)


def fork(body, context):
    results, other_end = forked.Pipe(duplex=False)
    process = forked.Process(target=send_later, args=(body, other_end))
    process.start()
    time.sleep(0.001)
    answer = results.recv()
    process.join(60)
    return answer


habit = globals()[os.environ["HABIT"]]


def handler(data, context):
    return habit(data.read(), context), "text/plain"
