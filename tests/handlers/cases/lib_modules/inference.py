"""Imports from code/lib, from beside the script, and what both have."""

import json

import beside
import inner.deep as deep
import xml
from both import WHERE


def handler(data, context):
    import late  # only now

    return json.dumps([beside.NAME, deep.name(), WHERE, late.NAME, xml.NAME]), "application/json"
