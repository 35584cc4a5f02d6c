"""Looks at the model's status: some errors are answered, others raised, the rest passed on."""

import json


def input_handler(data, context):
    return data.read().decode("utf-8")


def output_handler(response, context):
    if response.status_code == 404:
        return json.dumps({"status": 404, "message": response.json()["error"]}), "application/json"
    if response.status_code in (400, 503):
        raise Exception(response.content.decode("utf-8"))
    return response.content, "text/plain; status=%d" % response.status_code
