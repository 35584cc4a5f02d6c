"""Keeps the request in thread-local data while it asks the model, and a connection to sqlite that each thread makes."""
import sqlite3
import threading
import urllib.request

local = threading.local()


class Database(threading.local):
    def __init__(self):
        self.connection = sqlite3.connect(":memory:")
        self.connection.execute("CREATE TABLE request (body TEXT)")


database = Database()


def _ask_model(context):
    request = urllib.request.Request(context.rest_uri, local.body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read()


def handler(data, context):
    local.body = data.read()
    database.connection.execute("DELETE FROM request")
    database.connection.execute("INSERT INTO request VALUES (?)", (local.body,))
    answer = _ask_model(context)
    ((body,),) = database.connection.execute("SELECT body FROM request")
    if not answer == body == local.body:
        raise ValueError("the data of another request")
    return answer, "text/plain"
