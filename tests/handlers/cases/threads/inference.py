"""Works with threads: a pool in a call, and one in the background that serves between calls, too."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(4)
together = threading.Barrier(4, timeout=60)


def square(number):
    together.wait()  # until all four run
    return number * number


def serve(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"awake")


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(listener,), daemon=True).start()


def input_handler(data, context):
    return json.dumps(list(pool.map(square, json.loads(data.read()))))


def output_handler(response, context):
    return json.dumps({"squares": response.json(), "port": listener.getsockname()[1]}), "application/json"
