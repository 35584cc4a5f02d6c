"""Says what the context holds, in a single handler or in both functions of a pair."""

import json
import os


def seen(context):
    return {**context._asdict(), "channel": type(context.channel).__module__.split(".")[0]}


if os.environ.get("SINGLE"):

    def handler(data, context):
        return json.dumps(seen(context)), "application/json"


def input_handler(data, context):
    return json.dumps(seen(context))


def output_handler(response, context):
    # The fake model server sends back what it got, if it has the model.
    assert not response.ok or response.json() == seen(context), seen(context)
    return json.dumps(seen(context)), "application/json"
