"""Leaves something in thread-local data at import and in each call, and answers with what a call finds."""

import threading

local = threading.local()
local.left = "by import"


def handler(data, context):
    found = getattr(local, "left", "nothing")
    local.left = "by a call"
    return found, "text/plain"
