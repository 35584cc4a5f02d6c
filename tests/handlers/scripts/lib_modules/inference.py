"""Imports from code/lib, from beside the script, and what both have."""
import json

import beside
import inner.deep as deep
from both import WHERE
from lib_module import shout


def input_handler(data, context):
    import late  # only now

    return json.dumps([shout(data.read().decode()), beside.NAME, deep.name(), WHERE, late.NAME])


def output_handler(response, context):
    return response.content, "application/json"
