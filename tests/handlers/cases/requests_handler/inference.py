"""One handler that makes its own call, with a session that it keeps."""
import json

import requests

session = requests.Session()


def handler(data, context):
    if context.request_content_type != "application/json":
        raise ValueError("{} is not supported".format(context.request_content_type))
    response = session.post(context.rest_uri, data=data.read().decode("utf-8"), timeout=context.timeout)
    if response.status_code != 200:
        raise Exception(response.content.decode("utf-8"))
    predictions = json.loads(response.content)["predictions"]
    return json.dumps({"mean": sum(predictions) / len(predictions)}), context.accept_header
