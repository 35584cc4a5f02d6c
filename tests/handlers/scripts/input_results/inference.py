"""Everything that input_handler may return: what `requests.post(data=...)` takes. The body names the kind."""
import io
import pathlib

HERE = pathlib.Path(__file__).resolve().parent


class Chunks:
    """Iterable, and neither list nor generator."""

    def __iter__(self):
        return iter([b"one,", b"two"])


class Reader:
    """A file-like object of one's own."""

    def __init__(self, content):
        self.content = content

    def read(self, size=-1):
        size = len(self.content) if size is None or size < 0 else size
        piece, self.content = self.content[:size], self.content[size:]
        return piece

    def __iter__(self):
        while self.content:
            yield self.read(4)


def _numbers(count):
    yield b"["
    for number in range(count):
        yield b"%d," % number
    yield b"]"


def _fails_late():
    yield b"["
    raise ValueError("row 1 is broken")


def _moved():
    stream = io.BytesIO(b"skipped|sent")
    stream.seek(8)
    return stream


RESULTS = {
    "str": lambda: '{"größe": "模型 \U0001f600"}',
    "bytes": lambda: bytes(range(256)),
    "bytearray": lambda: bytearray(b"some bytes"),
    "empty str": lambda: "",
    "empty bytes": lambda: b"",
    "none": lambda: None,
    "nothing returned": lambda: print("there is no return"),
    "dict": lambda: {"name": "two words & more", "list": ["a", "b"], "größe": 1},
    "empty dict": lambda: {},
    "pairs": lambda: [("a", "1"), ("b", "2"), ("a", "3")],
    "file": lambda: open(HERE / "example.json", "rb"),
    "BytesIO": lambda: io.BytesIO(b"from memory"),
    "moved": _moved,
    "reader": lambda: Reader(b"read by and by"),
    "generator": lambda: _numbers(3),
    "long generator": lambda: _numbers(20000),
    "empty generator": lambda: iter(()),
    "iterable": Chunks,
    "map": lambda: map(str.encode, ["a", "b", "c"]),
    "late error": _fails_late,
    "int": lambda: 42,
    "surrogate": lambda: "\udc80",
}


def input_handler(data, context):
    return RESULTS[data.read().decode()]()


def output_handler(response, context):
    response.raise_for_status()
    return response.content, "application/octet-stream"
