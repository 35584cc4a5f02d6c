"""An HTTP client, waiting with a limit, and commands that run to their end."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .constants import HOST

# An answer takes milliseconds, waits and commands take seconds; these limits are for what hangs.
ANSWER_SECONDS = 90
WAIT_SECONDS = 60
COMMAND_SECONDS = 300


class Failure(AssertionError):
    """Something did not do what it should, and the text says what. In a test this is a failure, not an error."""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "backslashreplace")

    def json(self):
        return json.loads(self.body)


def request(
    port: int,
    method: str,
    path: str,
    body: bytes | str | Iterable[bytes] | None = None,
    headers: dict[str, str | None] | None = None,
) -> Answer:
    """Sends a request on a connection of its own. A body in pieces is sent in chunks; a header of None is left out."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_SECONDS)
    try:
        given = {name: value for name, value in (headers or {}).items() if value is not None}
        connection.request(method, path, body.encode() if isinstance(body, str) else body, given)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def wait_until(condition: Callable, failure: str | Callable[[], str], seconds: float = WAIT_SECONDS):
    """Asks until the condition is true and returns its value; fails with the text when the time is up."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise Failure(f"after {seconds} s: {failure if isinstance(failure, str) else failure()}")
        time.sleep(0.02)
    return value


def run(
    *command, code: int | None = 0, timeout: float = COMMAND_SECONDS, env: dict | None = None, input: str = ""
) -> str:
    """The output of a command, both streams; fails on another exit code, unless `code` is None."""
    command = [str(word) for word in command]
    done = subprocess.run(
        command, input=input.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, env=env
    )
    output = done.stdout.decode(errors="replace")
    if code not in (None, done.returncode):
        raise Failure(f"{' '.join(command)}: exit code {done.returncode}\n{output}")
    return output
