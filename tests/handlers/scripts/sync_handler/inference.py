"""A single handler that must never run twice at a time."""
import threading

import requests

busy = threading.Lock()


def handler(data, context):
    if not busy.acquire(blocking=False):
        raise RuntimeError("two requests at a time")
    try:
        response = requests.post(context.rest_uri, data=data.read())
        return response.content, context.request_content_type
    finally:
        busy.release()
