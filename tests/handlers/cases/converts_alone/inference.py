"""A single handler that asks the model itself, with the server's conversions."""

import requests
from sagemaker_tfs import convert


def handler(data, context):
    response = requests.post(context.rest_uri, data=convert.request(data, context))
    return convert.response(response, context)
