"""Uses submodules that it does not import, as scripts did that were loaded beside requests, falcon and gunicorn."""

import concurrent
import email
import http
import importlib
import json
import logging
import multiprocessing
import os
import urllib
import xml

USED = [
    concurrent.futures.ThreadPoolExecutor,
    email.message.EmailMessage,
    email.utils.formatdate,
    http.client.HTTPConnection,
    http.cookies.SimpleCookie,
    importlib.metadata.version,
    importlib.util.find_spec,
    importlib.resources.files,
    json.decoder.JSONDecodeError,
    logging.handlers.RotatingFileHandler,
    logging.config.dictConfig,
    multiprocessing.context.BaseContext,
    multiprocessing.reduction.ForkingPickler,
    os.path.join,
    urllib.error.HTTPError,
    urllib.parse.quote,
    urllib.request.urlopen,
    xml.etree.ElementTree.fromstring,
    xml.parsers.expat.ErrorString,
]
for package in (urllib, xml, email):
    assert not hasattr(package, "absent")
try:
    urllib.robotparser  # which nothing imported
except AttributeError as error:
    MISSING = str(error)


def handler(data, context):
    request = urllib.request.Request(context.rest_uri, data.read(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.dumps([MISSING, json.load(answer)]), "application/json"
