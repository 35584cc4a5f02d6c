"""HTTP/1.1 as the chaos run needs it: in pieces, slowly or broken off, and strict about what comes back.

Python's own client hides just what is to be done and seen here.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass

HOST = "127.0.0.1"
# Above the server's deadline of 60 s: who gets no answer until then has lost its request.
ANSWER_SECONDS = 90
RECEIVE_BYTES = 256 * 1024
# Small, so that a slow reader is felt at the other end.
SLOW_BUFFER_BYTES = 16 * 1024


class NoAnswer(Exception):
    """No whole answer came; the text says what came instead."""


class Closed(NoAnswer):
    """The server closed or reset the connection."""


class Silence(NoAnswer):
    """Nothing came in time."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class Connection:
    """One connection; answers are read one by one, and nothing but them may come."""

    def __init__(self, port: int, slow: bool = False):
        self.socket = socket.socket()
        if slow:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
        self.socket.settimeout(ANSWER_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread = b""
        self.answers = 0
        try:
            self.socket.connect((HOST, port))
        except OSError as error:
            self.close()
            raise NoAnswer(f"no connection: {error}") from None

    def send(self, *pieces: bytes) -> None:
        """A server may answer and close before it has all; the answer then tells."""
        try:
            for piece in pieces:
                self.socket.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def drip(self, pieces: Iterable[tuple[bytes, float]]) -> None:
        """Each piece with a pause after it."""
        for piece, pause in pieces:
            self.send(piece)
            time.sleep(pause)

    def end_sending(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def receive(self, pace: tuple[int, float] | None = None, has_body: bool = True) -> Answer:
        """The next answer; with a pace, so many bytes at a time and a pause after each. None to HEAD has a body."""
        size, pause = pace or (RECEIVE_BYTES, 0.0)
        while b"\r\n\r\n" not in self.unread:
            self.unread += self._more(size, "the head")
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        status, headers = parse_head(head)
        if status == 100:
            return Answer(status, headers, b"")
        length = int(headers.get("content-length", "-1")) if has_body else 0
        if length < 0:
            raise NoAnswer(f"an answer without a length: {head!r}")
        pieces, had = [self.unread], len(self.unread)
        while had < length:
            pieces.append(self._more(size, f"byte {had} of {length}"))
            had += len(pieces[-1])
            if pause:
                time.sleep(pause)
        if had > length:
            raise NoAnswer(f"{had - length} bytes more than the answer: {b''.join(pieces)[length:length + 100]!r}")
        self.unread = b""
        self.answers += 1
        return Answer(status, headers, b"".join(pieces))

    def _more(self, size: int, place: str) -> bytes:
        try:
            more = self.socket.recv(size)
        except OSError as error:
            kind = Silence if isinstance(error, TimeoutError) else Closed
            raise kind(f"{error} before {place}, after {self.answers} answers on this connection") from None
        if not more:
            raise Closed(f"closed before {place}, after {self.answers} answers on this connection")
        return more

    def hang_up(self, rudely: bool) -> None:
        """Rudely: with a reset, as when a client's process or machine is gone."""
        if rudely:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.socket.close()


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or words[0] != "HTTP/1.1" or not words[1].isdigit():
        raise NoAnswer(f"no HTTP answer: {first[:200]!r}")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise NoAnswer(f"no header: {line[:200]!r}")
        headers[name.lower()] = value.strip()
    return int(words[1]), headers
