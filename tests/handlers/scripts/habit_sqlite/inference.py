"""Has a connection to sqlite that was made at import, and works on the table that it keeps there."""
import sqlite3

connection = sqlite3.connect(":memory:")
connection.execute("CREATE TABLE request (body TEXT)")


def handler(data, context):
    connection.execute("DELETE FROM request")
    connection.execute("INSERT INTO request VALUES (?)", (data.read().decode(),))
    connection.commit()
    sum(number * number for number in range(20_000))
    ((body,),) = connection.execute("SELECT body FROM request")
    return body, "text/plain"
