"""Asks the model itself and says at its end that it is there."""

import atexit
import urllib.request

atexit.register(print, "cleaned up")


def handler(data, context):
    request = urllib.request.Request(context.rest_uri, data.read(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read(), "application/octet-stream"
