"""A pair of handlers that works: 5 ms of a processor's time for each request, however busy the machine is."""

import time

SECONDS = 0.005


def input_handler(data, context):
    begin = time.thread_time()
    while time.thread_time() - begin < SECONDS:
        pass
    return data.read()


def output_handler(response, context):
    return response.content, "application/json"
