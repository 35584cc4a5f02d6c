"""A single handler that asks the model itself, over a connection that each thread keeps; each call with gevent."""

import http.client
import threading
import urllib.parse

kept = threading.local()


def handler(data, context):
    address = urllib.parse.urlsplit(context.rest_uri)
    if not hasattr(kept, "connection"):
        kept.connection = http.client.HTTPConnection(address.netloc, timeout=context.timeout)
    kept.connection.request("POST", address.path, data.read(), {"Content-Type": "application/json"})
    answer = kept.connection.getresponse()
    return answer.read(), "application/json"
