"""A small HTTP/1.1 server on the loopback interface: a thread a connection, keep-alive, no TLS.

Request bodies come with Content-Length or chunked, and may be compressed with gzip; an answer leaves in
one write, head and body, on a socket without Nagle's delay. What a request means is the business of the
function it is given.
"""

import gzip
import socket
import threading
import time
import zlib
from http import HTTPStatus
from typing import NamedTuple

from local_model_server import log

HOST = "127.0.0.1"  # never another: there is no protection of any kind here
MAX_LINE = 64 * 1024  # bytes in a request line or header line
MAX_HEADERS = 200
BACKLOG = 1024  # many clients may connect at once in a test


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes


class _BadRequest(Exception):
    pass


def start(port, answer, threads):
    """Listens, then serves in the background. `answer(method, target, body)` returns an Answer.

    At most `threads` calls of it run at a time; OSError if the port cannot be had.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    slots = threading.BoundedSemaphore(max(threads, 1))
    threading.Thread(target=_accept, args=(listener, answer, slots), name="accept", daemon=True).start()


def _accept(listener, answer, slots):
    while True:
        try:
            connection, _ = listener.accept()
        except OSError as error:  # out of file descriptors, say: others may come back
            log.error("http_server", f"accept: {error}")
            time.sleep(0.1)
            continue
        threading.Thread(target=_serve, args=(connection, answer, slots), daemon=True).start()


def _serve(connection, answer, slots):
    try:
        with connection, connection.makefile("rb") as stream:
            try:
                while _serve_one(connection, stream, answer, slots):
                    pass
            except _BadRequest as error:
                _send(connection, Answer(400, "text/plain", f"{error}\n".encode()), keep_alive=False)
    except OSError:
        pass  # the client went away


def _serve_one(connection, stream, answer, slots):
    """Reads and answers one request; whether the connection stays open."""
    line = _read_line(stream)
    if not line:
        return False
    try:
        method, target, version = line.decode("latin-1").split()
    except ValueError:
        raise _BadRequest("malformed request line") from None
    headers = _read_headers(stream)
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = _read_body(stream, headers)
    if "gzip" in headers.get("content-encoding", "").lower():
        body = _uncompress(body)
    with slots:
        response = answer(method, target, body)
    wishes = headers.get("connection", "").lower()
    keep_alive = "close" not in wishes and (version != "HTTP/1.0" or "keep-alive" in wishes)
    _send(connection, response, keep_alive)
    return keep_alive


def _send(connection, response, keep_alive):
    head = (
        f"HTTP/1.1 {response.status} {_phrase(response.status)}\r\n"
        f"Content-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\n"
        f"{'' if keep_alive else 'Connection: close' + chr(13) + chr(10)}"
        "\r\n"
    )
    connection.sendall(head.encode("latin-1") + response.body)


def _phrase(status):
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"  # 499, a request that was cancelled


def _read_line(stream):
    """A line without its end; empty at the end of the stream or for an empty line."""
    line = stream.readline(MAX_LINE + 1)
    if len(line) > MAX_LINE:
        raise _BadRequest(f"a line of more than {MAX_LINE} bytes")
    return line.rstrip(b"\r\n")


def _read_headers(stream):
    headers = {}
    for _ in range(MAX_HEADERS):
        line = _read_line(stream)
        if not line:
            return headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            raise _BadRequest("malformed header line")
        headers[name.lower()] = value.strip()
    raise _BadRequest(f"more than {MAX_HEADERS} headers")


def _read_body(stream, headers):
    if "chunked" in headers.get("transfer-encoding", "").lower():
        chunks = []
        while size := _number(_read_line(stream).partition(b";")[0], 16):
            chunks.append(_read_exactly(stream, size))
            _read_line(stream)
        _read_headers(stream)  # trailers, and the empty line
        return b"".join(chunks)
    return _read_exactly(stream, _number(headers.get("content-length", "0"), 10))


def _uncompress(body):
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error):
        return b""  # as TFS goes on: the API then finds the document empty


def _number(text, base):
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise _BadRequest("malformed length of the body")
    return number


def _read_exactly(stream, size):
    body = stream.read(size)
    if len(body) < size:
        raise ConnectionError("the client closed in the middle of a body")
    return body
