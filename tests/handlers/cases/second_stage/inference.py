"""The pair, which asks a second model from output_handler; changes the address as text."""

import json

import requests


def input_handler(data, context):
    return data.read()


def output_handler(response, context):
    base, path = context.rest_uri.split("/v1/models/")
    model, method = path.split(":")
    address = context.rest_uri.replace(f"/{model}:", f"/{response.json()['next']}:")
    second = requests.post(address, data=response.content)
    seen = {"base": base, "model": model, "method": method, "status": second.status_code, "second": second.json()}
    return json.dumps(seen), "application/json"
