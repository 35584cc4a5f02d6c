"""Knows nothing of errors, as many scripts, unless the model's answer tells it what to do."""

import json


class Refusal(Exception):
    status_code = 422


def input_handler(data, context):
    return data.read()


def output_handler(response, context):
    print("output_handler got", response.status_code)
    answer = response.json()
    if "raise" in answer:
        response.raise_for_status()
    if "refuse" in answer:
        raise Refusal(answer["refuse"])
    return json.dumps(answer["predictions"]), "text/plain", answer.get("headers", {})
