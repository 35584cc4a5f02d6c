"""HTTP/1.1 on the loopback interface as libevent 2.1.12 speaks it under TFS 2.19: a thread a connection, keep-alive.

Its oddities are kept, for a server in front has to live with them: the body of a HEAD is not read (the next request is
looked for in it), and answers to HEAD and CONNECT have a body without a length. Bodies come with Content-Length or
chunked, and may be compressed with gzip. What a request means is the business of the function it is given.
"""

import gzip
import re
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

METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")  # others get 501
_WITH_BODY = {*METHODS, "CONNECT"} - {"HEAD"}
_VERSION = re.compile(r"HTTP/\d+\.\d+")
_CHUNK_SIZE = re.compile(rb"\s*([0-9a-fA-F]+)( .*)?")


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes
    closes: bool = False


class _Refused(Exception):
    """The rest of the connection cannot be understood; the argument is the status."""


def page(status):
    """What libevent answers of its own accord, before it closes the connection."""
    phrase = _phrase(status)
    text = (
        f"<HTML><HEAD>\n<TITLE>{status} {phrase}</TITLE>\n</HEAD><BODY>\n<H1>{phrase}</H1>\n</BODY></HTML>\n"
    )
    return Answer(status, "text/html; charset=ISO-8859-1", text.encode(), closes=True)


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
            except _Refused as refused:
                _send(connection, "", page(*refused.args), keep_alive=False)
    except OSError:
        pass  # the client went away


def _serve_one(connection, stream, answer, slots):
    """Reads and answers one request; whether the connection stays open."""
    line = _read_line(stream)
    if line is None:
        return False
    method, _, rest = line.decode("latin-1").rstrip(" ").partition(" ")
    target, _, version = rest.rpartition(" ")
    if not target or not _VERSION.fullmatch(version):
        raise _Refused(400)
    headers = _read_headers(stream)
    body = b""
    if method in _WITH_BODY:
        body = _read_body(connection, stream, headers, version)
    if method not in METHODS:
        response = page(501)
    else:
        if "gzip" in headers.get("content-encoding", ""):
            body = _uncompress(body)
        with slots:
            response = answer(method, target, body)
    wishes = headers.get("connection", "").lower()
    keep_alive = wishes != "close" and (version != "HTTP/1.0" or wishes.startswith("keep-alive"))
    keep_alive = method == "CONNECT" or keep_alive and not response.closes
    _send(connection, method, response, keep_alive)
    return keep_alive


def _send(connection, method, response, keep_alive):
    head = [f"HTTP/1.1 {response.status} {_phrase(response.status)}", f"Content-Type: {response.content_type}"]
    if method not in ("HEAD", "CONNECT"):
        head.append(f"Content-Length: {len(response.body)}")
    if response.closes or not keep_alive:
        head.append("Connection: close")
    connection.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + response.body)


def _phrase(status):
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"  # 499, a request that was cancelled


def _read_line(stream):
    """A line without its end; None where the stream ends."""
    line = stream.readline(MAX_LINE + 1)
    if len(line) > MAX_LINE:
        raise _Refused(400)
    return line.removesuffix(b"\n").removesuffix(b"\r") if line.endswith(b"\n") else None


def _read_headers(stream):
    headers = {}
    for _ in range(MAX_HEADERS):
        line = _read_line(stream)
        if line is None:
            raise ConnectionError("the client closed in the middle of a head")
        if not line:
            return headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            raise _Refused(400)
        headers.setdefault(name.lower(), value.strip(" \t"))  # the first of a name counts
    raise _Refused(400)


def _read_body(connection, stream, headers, version):
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    length = headers.get("content-length", "0")
    if not chunked and not (length.isascii() and length.isdigit()):
        raise _Refused(400)
    if not chunked and int(length) == 0:
        return b""
    if version != "HTTP/1.0" and (expected := headers.get("expect")):
        if expected.lower() != "100-continue":
            raise _Refused(417)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if not chunked:
        return _read_exactly(stream, int(length))
    chunks = []
    while True:
        line = _read_line(stream)
        size = _CHUNK_SIZE.fullmatch(line or b"")
        if not size:  # extensions, too, are more than libevent understands
            raise _Refused(413)
        if int(size[1], 16) == 0:
            _read_headers(stream)  # trailers, and the empty line
            return b"".join(chunks)
        chunks.append(_read_exactly(stream, int(size[1], 16)))
        _read_line(stream)


def _uncompress(body):
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error):
        return b""  # as TFS goes on: the API then finds the document empty


def _read_exactly(stream, size):
    body = stream.read(size)
    if len(body) < size:
        raise ConnectionError("the client closed in the middle of a body")
    return body
