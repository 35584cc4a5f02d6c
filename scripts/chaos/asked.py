"""What is asked of the servers, and what the answer must be: requests, each with content of its own.

The model server echoes what it gets, so an answer tells what became of its request. Each request has a mark, which
its body, its headers and its answer hold: an answer with another request's mark is known for what it is.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from wire import Answer

MODEL = "chaos"
MARK = re.compile(r"m\d+-\d+-[0-9a-f]{8}")
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
LARGE_BYTES = (200_000, 2_000_000)
# A model that takes a moment, so that there is something under way when processes are killed. Requests that were lost
# twice are sent one by one: all clients' moments together must be far below the deadline.
MODEL_TAKES_MS = (5, 300)


@dataclass
class Request:
    mark: str
    kind: str
    body: bytes
    content_type: str | None
    # Whether an answer is the right one, of this status.
    is_right: Callable[[Answer], bool]
    status: int = 200
    method: str = "POST"
    path: str = "/invocations"
    headers: dict[str, str] = field(default_factory=dict)
    # Whether it is wrong on purpose in a way that its sending must not change.
    is_bad: bool = False
    # Announced instead of the body's own length.
    length: int | None = None

    def head(self, chunked: bool = False, expect: bool = False) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: localhost"]
        if self.content_type:
            lines.append(f"Content-Type: {self.content_type}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        elif self.method != "GET":
            lines.append(f"Content-Length: {len(self.body) if self.length is None else self.length}")
        if expect:
            lines.append("Expect: 100-continue")
        return "\r\n".join([*lines, "", ""]).encode()


class Maker:
    """Makes the requests of one client, at random from its own seed."""

    def __init__(self, chance: random.Random, client: int, handlers: bool):
        self.chance = chance
        self.client = client
        self.handlers = handlers
        self.made = 0
        self.mark = ""
        bad = [self.unknown_path, self.wrong_method, self.wrong_attribute, self.two_lengths, self.short_body]
        if handlers:
            good = {self.handled_json: 46, self.handled_csv: 18, self.handled_image: 12, self.raising: 8}
        else:
            good = {self.json: 30, self.value: 8, self.lines: 10, self.joined: 4, self.csv: 18, self.image: 10}
            bad += [self.unsupported_type, self.broken_text, self.open_quote, self.not_joinable, self.unknown_model]
        good |= {self.passed: 4, self.large: 0.7}
        self.kinds = [*good, *bad]
        self.weights = [*good.values(), *[12 / len(bad)] * len(bad)]

    def next(self) -> Request:
        self.new_mark()
        return self.chance.choices(self.kinds, self.weights)[0]()

    def large(self) -> Request:
        """A body that takes many reads and writes."""
        self.new_mark()
        size = self.chance.randint(*LARGE_BYTES)
        if self.handlers:
            kind = self.chance.choice((self.handled_json, self.handled_image))
        else:
            kind = self.chance.choice((self.json, self.csv, self.image))
        return kind(size)

    def new_mark(self) -> None:
        self.made += 1
        self.mark = f"m{self.client}-{self.made}-{self.chance.getrandbits(32):08x}"

    # Without handlers.

    def json(self, size: int = 0) -> Request:
        """Passes as it is, but for line ends when a type is asked for."""
        rows = [self.mark, self._number(), self._text(size)]
        layout = {"indent": self.chance.choice((None, 1)), "ensure_ascii": self.chance.random() < 0.5}
        body = json.dumps({"instances": rows, **self._fake(size)}, **layout).encode()
        asked = self.chance.choice((None, "application/json", "application/jsonlines"))
        expected = body if asked is None else body.replace(b"\n", b"")
        headers = {} if asked is None else {"Accept": asked}
        request = self._request("JSON", body, "application/json", lambda answer: answer.body == expected)
        request.headers = headers
        is_right = request.is_right
        given = asked or "application/json"
        request.is_right = lambda answer: is_right(answer) and answer.headers.get("content-type") == given
        return request

    def value(self) -> Request:
        values = (
            ([self.mark, self._number()], lambda v: [v]),
            ({"x": self.mark, "y": self._number()}, lambda v: [v]),
            (self.mark, lambda v: [v]),
            ([[self.mark], [self._number()]], lambda v: v),
        )
        value, rows = self.chance.choice(values)
        return self._converted("JSON value", json.dumps(value).encode(), "application/json", rows(value))

    def lines(self) -> Request:
        rows = [self.mark] + [self._row() for _ in range(self.chance.randint(1, 20))]
        body = "".join(json.dumps(row) + "\n" for row in rows).encode()
        content_type = self.chance.choice(("application/jsonlines", "application/jsons", "application/json"))
        return self._converted("JSON lines", body, content_type, rows)

    def joined(self) -> Request:
        rows = [[self.mark]] + [[self._number(), self._text()] for _ in range(self.chance.randint(1, 5))]
        body = "\n".join(json.dumps({"instances": each}) for each in rows).encode()
        return self._converted("JSON lines", body, "application/jsonlines", sum(rows, []))

    def csv(self, size: int = 0) -> Request:
        body, rows = self._csv(size)
        return self._converted("CSV", body, "text/csv", [row[0] if len(row) == 1 else row for row in rows])

    def image(self, size: int = 0) -> Request:
        body = self.mark.encode() + self.chance.randbytes(size or self.chance.randint(1, 3000))
        rows = [{"b64": base64.b64encode(body).decode()}]
        content_type = self.chance.choice(("application/x-image", "image/png", "image/jpeg"))
        return self._converted("image", body, content_type, rows)

    def passed(self) -> Request:
        body = json.dumps({"instances": [self.mark, self._number()]}, indent=1).encode()
        request = self._request("TFS's API", body, "application/json", lambda answer: answer.body == body)
        request.path = f"/tfs/v1/models/{MODEL}:predict"
        return request

    # Through the handlers.

    def handled_json(self, size: int = 0) -> Request:
        rows = [self.mark, self._number(), self._text(size)]
        body = json.dumps({"rows": rows, **self._fake(size)}).encode()
        return self._handled("JSON", body, "application/json", rows)

    def handled_csv(self) -> Request:
        rows = [line.split(",") for line in self._plain_csv()]
        body = "".join(",".join(row) + "\n" for row in rows).encode()
        return self._handled("CSV", body, "text/csv", rows)

    def handled_image(self, size: int = 0) -> Request:
        body = self.mark.encode() + self.chance.randbytes(size or self.chance.randint(1, 3000))
        request = self._handled("image", body, "application/x-image", [])
        request.is_right = lambda answer: answer.body == body
        return request

    def raising(self) -> Request:
        """An exception in the handler, whose text is the answer."""
        text = f"{self.mark} is not wanted"
        body = json.dumps({"rows": [], "raise": text}).encode()
        request = self._handled("exception in a handler", body, "application/json", [])
        request.status = 500
        request.is_right = lambda answer: json.loads(answer.body) == {"error": text}
        return request

    # Wrong on purpose.

    def unknown_path(self) -> Request:
        return self._bad(404, "Not Found", path=f"/{self.mark}")

    def wrong_method(self) -> Request:
        request = self._bad(405, "Method Not Allowed: /invocations accepts POST", method="PUT")
        is_right = request.is_right
        request.is_right = lambda answer: is_right(answer) and answer.headers.get("allow") == "POST"
        return request

    def wrong_attribute(self) -> Request:
        text = f'Custom attribute tfs-method is "{self.mark}"; accepted: predict, classify or regress.'
        return self._bad(400, text, headers={ATTRIBUTES: f"tfs-method={self.mark}"})

    def two_lengths(self) -> Request:
        return self._bad(400, None, headers={"Transfer-Encoding": "chunked"})

    def short_body(self) -> Request:
        """Announces more than it sends; its client says that no more will come."""
        body = self.mark.encode() + b" " * self.chance.randint(2000, 9000)
        length = len(body) + self.chance.randint(1, 5000)
        text = f"The body ended after {len(body)} of {length} bytes."
        return self._bad(400, text, body=body, length=length)

    def unsupported_type(self) -> Request:
        content_type = f"application/x-{self.mark}"
        return self._bad(415, f"Unsupported Media Type: {content_type}", content_type=content_type)

    def broken_text(self) -> Request:
        row = self.chance.randint(1, 30)
        body = f"{self.mark},1\n".encode() * (row - 1) + f"{self.mark},".encode() + b"\xff\xfe\n"
        return self._bad(400, f"CSV row {row} is not valid UTF-8.", content_type="text/csv", body=body)

    def open_quote(self) -> Request:
        row = self.chance.randint(1, 30)
        body = f"{self.mark},1\n".encode() * (row - 1) + f'"{self.mark},2\n'.encode()
        text = f"CSV row {row}: a quoted field is never closed."
        return self._bad(400, text, content_type="text/csv", body=body)

    def not_joinable(self) -> Request:
        first, second = {"instances": [self.mark]}, {"instances": [1], "signature_name": "other"}
        body = f"{json.dumps(first)}\n{json.dumps(second)}".encode()
        request = self._bad(400, None, body=body)
        request.is_right = lambda answer: json.loads(answer.body)["error"].startswith("The body holds several values")
        return request

    def unknown_model(self) -> Request:
        text = f"Servable not found for request: Latest({self.mark})"
        return self._bad(404, text, headers={ATTRIBUTES: f"tfs-model-name={self.mark}"})

    # What they are made of.

    def _request(self, kind: str, body: bytes, content_type: str, is_right: Callable[[Answer], bool]) -> Request:
        return Request(self.mark, kind, body, content_type, is_right)

    def _converted(self, kind: str, body: bytes, content_type: str, rows: list) -> Request:
        expected = {"instances": rows}
        return self._request(kind, body, content_type, lambda answer: json.loads(answer.body) == expected)

    def _handled(self, kind: str, body: bytes, content_type: str, rows: list) -> Request:
        expected = {"mark": self.mark, "helped": self.mark, "rows": rows}
        request = self._request(kind, body, content_type, lambda answer: json.loads(answer.body) == expected)
        request.headers = {ATTRIBUTES: f"chaos={self.mark}"}
        return request

    def _bad(self, status: int, text: str | None, **changes) -> Request:
        def is_right(answer: Answer) -> bool:
            error = json.loads(answer.body)
            return isinstance(error["error"], str) and text in (None, error["error"])

        fields = {"body": json.dumps([self.mark]).encode(), "content_type": "application/json", **changes}
        return Request(self.mark, "bad input", is_right=is_right, status=status, is_bad=True, **fields)

    def _fake(self, size: int) -> dict:
        """Now and then a command to the model server, which looks for one in small bodies."""
        if size or self.chance.random() < 0.7:
            return {}
        if self.chance.random() < 0.02:
            where = self.chance.choice(("before_answer", "mid_answer"))
            return {"fake": {"close": where, "fail_first": 1, "key": self.mark}}
        return {"fake": {"delay_ms": self.chance.randint(*MODEL_TAKES_MS)}}

    def _csv(self, size: int) -> tuple[bytes, list[list]]:
        """Fields in several spellings, and what they mean; all rows of one width."""
        width = self.chance.randint(1, 5)
        first = [(f'"{self.mark}"', self.mark)] + [self._field() for _ in range(width - 1)]
        count = max(self.chance.randint(1, 20), size // (12 * width))
        # Many rows are a few over and over: it is the bytes that are many.
        some = [[self._field() for _ in range(width)] for _ in range(min(count, 20))]
        rows = [first, *(some * (count // len(some) + 1))[:count]]
        end = self.chance.choice(("\n", "\r\n"))
        text = "".join(",".join(spelt for spelt, _ in row) + end for row in rows)
        return text.encode(), [[meant for _, meant in row] for row in rows]

    def _field(self) -> tuple[str, float | int | str]:
        number = self._number()
        text = self._text()
        spellings = (
            (str(number), number),
            (f"+{abs(number)}", abs(number)),
            (f".{abs(int(number))}", float(f"0.{abs(int(number))}")),
            (f'"{number}"', str(number)),
            (text, text),
            (f'"{text}, ""{text}""\n{text}"', f'{text}, "{text}"\n{text}'),
        )
        return self.chance.choice(spellings)

    def _plain_csv(self) -> list[str]:
        return [self.mark, *(f"{self._number()},{self._text()}" for _ in range(self.chance.randint(1, 20)))]

    def _row(self) -> float | str | dict:
        return self.chance.choice((self._number(), self._text(), {"x": self._number(), "y": self._text()}))

    def _number(self) -> float | int:
        return self.chance.choice((self.chance.randint(-(10**9), 10**9), self.chance.uniform(-1000, 1000)))

    def _text(self, size: int = 0) -> str:
        if size:
            return self.chance.randbytes(size // 2).hex()
        # A field that reads nan or inf would be a number.
        return "t" + "".join(self.chance.choices("abcdefghijklmnopqrstuvwxyzäöü€", k=self.chance.randint(0, 30)))


def marks_in(body: bytes) -> set[str]:
    """The marks of requests in an answer, also those in images."""
    texts = [body.decode("utf-8", "replace")]
    try:
        for row in json.loads(body)["instances"]:
            if isinstance(row, dict) and "b64" in row:
                texts.append(base64.b64decode(row["b64"]).decode("utf-8", "replace"))
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    return set().union(*map(MARK.findall, texts))
