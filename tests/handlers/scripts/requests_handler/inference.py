"""One handler that makes its own call, with a session that is kept."""
import json

import requests

session = requests.Session()


def handler(data, context):
    processed = _process_input(data, context)
    response = session.post(context.rest_uri, data=processed, timeout=context.timeout)
    return _process_output(response, context)


def _process_input(data, context):
    if context.request_content_type == "application/json":
        return data.read().decode("utf-8")
    raise ValueError("{} is not supported".format(context.request_content_type))


def _process_output(response, context):
    if response.status_code != 200:
        raise Exception(response.content.decode("utf-8"))
    predictions = json.loads(response.content)["predictions"]
    return json.dumps({"mean": sum(predictions) / len(predictions)}), context.accept_header
