"""Two models one after the other: takes the address apart and puts other models into it."""

import json
from urllib.parse import urlsplit

import requests


def ask(rest_uri, model, instances):
    parts = urlsplit(rest_uri)
    assert parts.hostname == "localhost" and parts.port, rest_uri
    method = parts.path.rpartition(":")[2]
    address = parts._replace(path=f"/v1/models/{model}:{method}").geturl()
    response = requests.post(address, json={"instances": instances})
    response.raise_for_status()
    return response.json()["predictions"]


def handler(data, context):
    scaled = ask(context.rest_uri, "half_plus_three/versions/124", json.loads(data.read()))
    (flower,) = ask(context.rest_uri, "demo", [scaled])
    return json.dumps({"scaled": scaled, "label": flower["label"]}), "application/json"
