"""Asks the model with a session that was made at import, and keeps the request in a local variable alone."""
import requests

session = requests.Session()


def handler(data, context):
    body = data.read()
    response = session.post(context.rest_uri, data=body, timeout=60)
    response.raise_for_status()
    if response.content != body:
        raise ValueError("the answer to another request")
    return response.content, "text/plain"
