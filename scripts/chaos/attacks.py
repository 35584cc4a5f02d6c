"""What hostile clients send, and what must come of it.

What must be refused (smuggled requests, JSON nested too deep, heads too large) gets 4xx, 501, or 503
under load. What is allowed but costly (the worst bodies for memory) gets its own right answer or any error. In both
cases the server may also close the connection, but it must not stay silent. Attacks have marks as requests have.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from asked import ATTRIBUTES, MODEL, Maker, marks_in
from wire import Answer

# Of heads, and of nesting in JSON, the least that must be refused.
TOO_LARGE_HEAD = 32 * 1024 + 1
TOO_DEEP = 513
MOST_LEVELS = 100_000
COSTLY_BYTES = (100_000, 1_500_000)
# In all pauses of a body that comes a few bytes at a time.
DRIP_SECONDS = 2.0

Judge = Callable[[Answer], bool]


@dataclass
class Attack:
    kind: str
    mark: str
    # What is sent, each with a pause after it.
    pieces: list[tuple[bytes, float]]
    is_fine: Judge
    # The answer to a HEAD announces a body that does not come.
    answer_has_body: bool = True

    def complaint(self, answer: Answer) -> str:
        """What is wrong with an answer to it; empty when nothing is."""
        asked = b"".join(piece for piece, _ in self.pieces[:2])[:200].split(b"\r\n")[0]
        what = f"{answer.status} {answer.body[:200]!r} to {self.mark}, {asked!r}"
        if others := marks_in(answer.body) - {self.mark}:
            return f"has the marks {others}: {what}"
        try:
            return "" if self.is_fine(answer) else what
        except (ValueError, LookupError, TypeError, RecursionError):
            return what


def is_refused(answer: Answer) -> bool:
    return 400 <= answer.status < 500 or answer.status in (501, 503)


def is_error(answer: Answer) -> bool:
    return 400 <= answer.status < 600


def or_error(is_right: Judge) -> Judge:
    return lambda answer: is_error(answer) or (answer.status == 200 and is_right(answer))


class AttackMaker:
    """Makes the attacks of one hostile client, at random from its own seed."""

    def __init__(self, chance: random.Random, client: int, handlers: bool):
        self.chance = chance
        self.handlers = handlers
        self.maker = Maker(chance, client, handlers)
        self.kinds: dict[Callable[[], Attack], int] = {
            self.smuggled: 40,
            self.nested: 20,
            self.empty_names: 4,
            self.control_characters: 4,
            self.small_chunks: 8,
            self.large_head: 8,
            self.load_model: 4,
        }

    def next(self) -> Attack:
        self.maker.new_mark()
        return self.chance.choices(list(self.kinds), list(self.kinds.values()))[0]()

    def smuggled(self) -> Attack:
        """A whole prediction as the body of a request that must not have one, for TFS to take for the next request."""
        inner = self._request(f"/v1/models/{MODEL}:predict", json.dumps({"instances": [self.mark]}).encode())
        methods = ("GET", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH", "CONNECT", "TRACE", "get", "GETS")
        weights = (6, 4, 2, 2, 1, 1, 1, 1, 1, 1)
        (method,) = self.chance.choices(methods, weights)
        path = self.chance.choice((f"/tfs/v1/models/{MODEL}", f"/tfs/v1/models/{MODEL}:predict", "/tfs/", "/tfs/x"))
        if self.chance.random() < 0.3:
            framing, body = "Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
        else:
            framing, body = f"Content-Length: {len(inner)}", inner
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode()
        return Attack("smuggled request", self.mark, self._cut(head + body), is_refused, method != "HEAD")

    def nested(self) -> Attack:
        """JSON nested so deep that it would overflow the stack of TFS's parser, closed or not."""
        levels = self.chance.choice((TOO_DEEP, self.chance.randint(TOO_DEEP, MOST_LEVELS)))
        opening, closing = self.chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"b":', b"}]")))
        deep = opening * levels + b"1" + closing * levels * self.chance.randint(0, 1)
        member = self.chance.choice((b"instances", b"inputs", b"other"))
        body = b'{"mark":"%b","%b":%b' % (self.mark.encode(), member, deep)
        body += b"}" if deep.endswith(closing) else b""
        path = self.chance.choice(("/invocations", f"/tfs/v1/models/{MODEL}:predict"))
        # The script's own parser meets it first.
        by_script = self.handlers and path == "/invocations"
        request = self._request(path, body)
        return Attack("deep JSON", self.mark, [(request, 0)], is_error if by_script else is_refused)

    def empty_names(self) -> Attack:
        """Very many members for its bytes."""
        member = b'"":0,'
        body = b'{"%b":0,%b"":0}' % (self.mark.encode(), member * (self._size() // len(member)))
        request = self._request("/invocations", body)
        return Attack("JSON of empty names", self.mark, [(request, 0)], or_error(lambda answer: body in answer.body))

    def control_characters(self) -> Attack:
        """CSV each byte of which becomes six."""
        row = "\x01\x1f" * self.chance.randint(1, 500)
        count = self._size() // (len(row) + 1)
        body = "\n".join([self.mark, *[row] * count]).encode()
        rows = [self.mark, *[row] * count]
        key = "instances"
        if self.handlers:
            key, rows = "rows", [[row] for row in rows]
        request = self._request("/invocations", body, "text/csv")
        is_right = lambda answer: json.loads(answer.body)[key] == rows
        return Attack("CSV of control characters", self.mark, [(request, 0)], or_error(is_right))

    def small_chunks(self) -> Attack:
        """A good request in chunks of a few bytes, slowly; some end in the middle of it."""
        good = self.maker.handled_json() if self.handlers else self.maker.value()
        body = good.body
        chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[i : i + 3] for i in range(0, len(body), 3))]
        pause = self.chance.uniform(0, DRIP_SECONDS / len(chunks))
        pieces = [(good.head(chunked=True), 0.0), *((chunk, pause) for chunk in chunks), (b"0\r\n\r\n", 0.0)]
        if self.chance.random() < 0.3:
            # A length that is no number.
            pieces = [*pieces[: self.chance.randrange(1, len(pieces))], (b"g\r\n", 0.0)]
            return Attack("broken chunks", good.mark, pieces, is_error)
        return Attack("small chunks", good.mark, pieces, or_error(good.is_right))

    def large_head(self) -> Attack:
        size = self.chance.randint(TOO_LARGE_HEAD, 3 * TOO_LARGE_HEAD)
        line = f"X-{self.mark}: {'x' * self.chance.choice((100, 1000, size))}\r\n"
        lines = line * (size // len(line) + 1)
        head = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{lines}\r\n".encode()
        return Attack("large head", self.mark, self._cut(head), is_refused)

    def load_model(self) -> Attack:
        """Loads a model in multi-model mode, which must refuse these sizes and types; in single-model mode a 404."""
        body = json.dumps({"model_name": self.mark, "url": "/" + "x" * self.chance.randint(1, 200_000)}).encode()
        content_type = self.chance.choice(("text/plain", "multipart/form-data", "application/json"))
        request = self._request("/models", body, content_type)
        return Attack("POST /models", self.mark, [(request, 0)], is_refused)

    @property
    def mark(self) -> str:
        return self.maker.mark

    def _request(self, path: str, body: bytes, content_type: str = "application/json") -> bytes:
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type}"]
        lines += [f"Content-Length: {len(body)}", f"{ATTRIBUTES}: chaos={self.mark}"]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def _size(self) -> int:
        return self.chance.randint(*COSTLY_BYTES)

    def _cut(self, data: bytes) -> list[tuple[bytes, float]]:
        """In one piece, or in two with a moment between them."""
        if self.chance.random() < 0.5:
            return [(data, 0)]
        place = self.chance.randrange(len(data))
        return [(data[:place], self.chance.uniform(0, 0.2)), (data[place:], 0)]
