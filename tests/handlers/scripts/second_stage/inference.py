"""The pair, with a second model asked from output_handler; the address is changed as text."""
import json

import requests


def input_handler(data, context):
    return data.read()


def output_handler(response, context):
    first = response.json()
    base_uri, path = context.rest_uri.split("/v1/models/")
    model, method = path.split(":")
    second = requests.post(context.rest_uri.replace(f"/{model}:", f"/{first['next']}:"), data=response.content)
    seen = {"base": base_uri, "model": model, "method": method, "status": second.status_code}
    return json.dumps({**seen, "second": second.json()}), "application/json"
