"""Two models one after the other: takes the address apart and puts other models into it."""
import json
from urllib.parse import urlsplit

import requests


def _address_of(rest_uri, model, version=None):
    parts = urlsplit(rest_uri)
    assert parts.hostname == "localhost" and parts.port, rest_uri
    method = parts.path.rpartition(":")[2]
    path = "/v1/models/" + model
    if version:
        path += "/versions/%s" % version
    return parts._replace(path=path + ":" + method).geturl()


def _ask(address, instances):
    response = requests.post(address, json={"instances": instances})
    response.raise_for_status()
    return response.json()["predictions"]


def handler(data, context):
    measures = json.loads(data.read())
    scale = _address_of(context.rest_uri, "half_plus_three", 124)
    classify = _address_of(context.rest_uri, "demo")
    scaled = _ask(scale, measures)
    (flower,) = _ask(classify, [scaled])
    return json.dumps({"scaled": scaled, "label": flower["label"]}), "application/json"
