"""What users' scripts do, and what is answered: each script with the requests it gets, one after the other.

`scripts/<folder>/inference.py` is the script. How lines are written is in `harness.py`; `test_handlers.py` runs
them. What needs several requests at a time is there, too.
"""

import hashlib
import io
import json
import sys
from urllib.parse import quote_plus

import numpy as np
from PIL import Image

from harness import CSV, JSON, JSON_LINES, PREDICTIONS, Refused, Row, Script, error, error_with, json_value, text

THREE = '{"instances": [1.0, 2.0, 5.0]}'
PLAIN = "text/plain"
OCTETS = "application/octet-stream"
NPY = "application/x-npy"


def picture(kind, size, grey, mode="RGB"):
    out = io.BytesIO()
    Image.new(mode, size, grey if mode == "L" else (grey, grey, grey)).save(out, kind)
    return out.getvalue()


def npy(values, dtype):
    out = io.BytesIO()
    np.save(out, np.array(values, dtype))
    return out.getvalue()


FLOWERS = [[5.0, 3.4, 1.5, 0.2], [5.9, 2.8, 4.3, 1.3], [6.9, 3.1, 6.0, 2.2]]
FLOWERS_CSV = """petal_width,petal_length,note,sepal_width,sepal_length
0.2,1.5,"a, note",3.4,5.0
1.3,4.3,,2.8,5.9
2.2,6.0,no width,,6.9
"""
LABELS = [{"label": "small"}, {"label": "middle"}, {"label": "large"}]
SHAPE = [6, 8, 3]

# What data scientists write, with TensorFlow behind it.
WITH_TENSORFLOW = [
    Script(
        "json_pair",
        tensorflow=True,
        rows=[
            Row("instances", THREE, text(PREDICTIONS, JSON)),
            Row("the accepted type", THREE, text(PREDICTIONS, "application/x-ours"), accept="application/x-ours"),
            Row("layout is left alone", THREE, text(PREDICTIONS, JSON), accept=JSON),
            Row("no content type", THREE, text(PREDICTIONS, JSON), content_type=None),
            Row("in chunks", [b'{"instances":', b" [1.0, 2.0, 5.0]}"], text(PREDICTIONS, JSON)),
            Row("CSV", "1.0,2.0,5.0", text(PREDICTIONS, JSON), CSV),
            Row("a version", THREE, text(PREDICTIONS, JSON), attributes="tfs-model-version=123"),
            Row(
                "another method",
                '{"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}]}',
                json_value({"results": [3.5]}),
                attributes="tfs-method=regress",
            ),
            Row("an unknown type", "x", error('{"error": "cannot read text/html"}'), "text/html"),
            Row("no number", "1.0,two", error("could not convert string to float: 'two'"), CSV),
            Row("the model refuses", '{"instances": [1.0, "two"]}', error_with("not of expected type: float")),
            Row("an empty body", "", error_with("The document is empty")),
            Row(
                "an unknown version",
                THREE,
                error_with("Servable not found for request: Specific(half_plus_three, 7)"),
                attributes="tfs-model-version=7",
            ),
            Row("a wrong attribute", THREE, error_with("tfs-method", 400), attributes="tfs-method=train"),
        ],
        log=(
            "Traceback (most recent call last)",
            "ValueError: could not convert string to float: 'two'",
            "in input_handler",
            "in output_handler",
        ),
    ),
    Script(
        "csv_reader",
        tensorflow=True,
        rows=[
            Row("a file", "id,x\r\n7,1\r\n8,2.0\r\n", text("y\r\n3.5\r\n4.0\r\n", CSV), CSV),
            Row("quotes", '\ufeffx,id\n"5.0","a ""b"", c"\n', text("y\r\n5.5\r\n", CSV), "text/csv; charset=utf-8"),
            Row("a missing column", "id,y\n1,2\n", error("columns are missing: x"), CSV),
            Row("another type", "{}", error("text/csv is wanted, not application/json")),
            Row(
                "raise_for_status",
                "id,x\n",
                error(
                    "400 Client Error: Bad Request for url: "
                    "http://localhost:$rest_port/v1/models/half_plus_three:predict"
                ),
                CSV,
            ),
        ],
    ),
    Script(
        "pandas_frame",
        models=("demo",),
        tensorflow=True,
        rows=[
            Row("CSV", FLOWERS_CSV, json_value(LABELS), CSV),
            Row("CSV to CSV", FLOWERS_CSV, text("label\nsmall\nmiddle\nlarge\n", CSV), CSV, accept=CSV),
            Row(
                "JSON",
                '[{"sepal_length": 6.9, "sepal_width": null, "petal_length": 6.0, "petal_width": 2.2}]',
                json_value([{"label": "large"}]),
            ),
            Row("missing columns", "a,b\n1,2\n", error_with("None of [Index(["), CSV),
            Row("nothing", "", error("No columns to parse from file"), CSV),
        ],
    ),
    Script(
        "image_pillow",
        models=("image",),
        tensorflow=True,
        rows=[
            Row("PNG", picture("PNG", (3, 2), 60), json_value({"shape": SHAPE, "mean": 60.0}), "image/png"),
            Row("JPEG", picture("JPEG", (640, 480), 90), json_value({"shape": SHAPE, "mean": 90.0}), "image/jpeg"),
            Row("GIF", picture("GIF", (9, 9), 0), json_value({"shape": SHAPE, "mean": 0.0}), "application/x-image"),
            Row(
                "a picture back",
                picture("PNG", (3, 2), 60),
                text(picture("PNG", (1, 1), 60, "L"), "image/png"),
                "image/png",
                accept="image/png",
            ),
            Row("no picture", b"GIF89a, or not", error_with("cannot identify image file"), "image/gif"),
            Row("another type", "{}", error("not a picture: application/json")),
        ],
    ),
    Script(
        "numpy_rows",
        models=("demo",),
        tensorflow=True,
        rows=[
            Row(".npy", npy(FLOWERS, "f8"), json_value(["small", "middle", "large"]), NPY),
            Row(".npy to .npy", npy(FLOWERS[::-1], "f4"), text(npy([2, 1, 0], "<i8"), NPY), NPY, accept=NPY),
            Row("JSON", "[5.0, 3.4, 1.5, 0.2]", json_value(["small"])),
            Row("three columns", "[[1, 2, 3]]", error("expected four columns, got shape (1, 3)")),
        ],
    ),
    Script(
        "grpc_channel",
        tensorflow=True,
        rows=[
            Row("a request", THREE, json_value({"predictions": [3.5, 4.0, 5.5], "channels": 1})),
            Row("on the same channel", THREE, json_value({"predictions": [3.5, 4.0, 5.5], "channels": 1})),
            Row("an unknown model", THREE, error_with("StatusCode.NOT_FOUND"), attributes="tfs-model-name=absent"),
        ],
    ),
    Script(
        "grpc_port",
        tensorflow=True,
        rows=[
            Row("a request", THREE, json_value({"predictions": [3.5, 4.0, 5.5], "version": 124})),
            Row(
                "a version",
                THREE,
                json_value({"predictions": [3.5, 4.0, 5.5], "version": 123}),
                attributes="tfs-model-version=123",
            ),
            Row("an unknown version", THREE, error_with("NOT_FOUND: "), attributes="tfs-model-version=7"),
        ],
    ),
    Script(
        "requests_handler",
        tensorflow=True,
        rows=[
            Row("a request", THREE, json_value({"mean": 13 / 3})),
            Row("a version", THREE, json_value({"mean": 13 / 3}), attributes="tfs-model-version=123"),
            Row("another type", "1.0", error("text/csv is not supported"), CSV),
            Row("the model refuses", "{}", error_with("Missing ")),
        ],
    ),
    Script(
        "ensemble",
        models=("demo", "half_plus_three"),
        tensorflow=True,
        rows=[
            Row(
                "both models",
                "[7.8, -0.4, 6.0, -1.6]",
                json_value({"scaled": [6.9, 2.8, 6.0, 2.2], "label": "large"}),
            ),
            Row(
                "the first refuses",
                '["x"]',
                error(
                    "400 Client Error: Bad Request for url: "
                    "http://localhost:$rest_port/v1/models/half_plus_three/versions/124:predict"
                ),
            ),
        ],
    ),
    Script(
        "response_object",
        tensorflow=True,
        rows=[
            Row(
                "200",
                THREE,
                json_value(
                    SEEN_OF_RESPONSE := {
                        "status_code": 200,
                        "ok": True,
                        "reason": "OK",
                        "url": "http://localhost:$rest_port/v1/models/half_plus_three:predict",
                        "encoding": "utf-8",
                        "headers": [JSON, JSON, JSON, True, None, "no", False],
                        "absent": "KeyError",
                        "names": True,
                        "items": JSON,
                        "types": ["bytes", "str"],
                        "text is content": True,
                        "json is text": True,
                        "json with options": "dict",
                        "pieces of 7": 7,
                        "joined": True,
                        "iterated": True,
                        "lines": True,
                        "text lines": True,
                        "repr": True,
                        "again": True,
                    }
                ),
            ),
            Row(
                "404",
                THREE,
                json_value(
                    {
                        **SEEN_OF_RESPONSE,
                        "status_code": 404,
                        "ok": False,
                        "reason": "Not Found",
                        "url": "http://localhost:$rest_port/v1/models/half_plus_three/versions/7:predict",
                    }
                ),
                attributes="tfs-model-version=7",
            ),
            Row("raise_for_status at 200", THREE, json_value(SEEN_OF_RESPONSE), attributes="raise"),
            Row(
                "raise_for_status at 404",
                THREE,
                error(
                    "404 Client Error: Not Found for url: "
                    "http://localhost:$rest_port/v1/models/half_plus_three/versions/7:predict"
                ),
                attributes="raise,tfs-model-version=7",
            ),
        ],
    ),
]


def context(**changes):
    """What a request without any headers makes of the context."""
    seen = {
        "model_name": None,
        "model_version": None,
        "method": None,
        "rest_uri": "http://localhost:$rest_port/v1/models/half_plus_three:predict",
        "grpc_port": "$grpc_port",
        "channel": "grpc",
        "custom_attributes": None,
        "request_content_type": JSON,
        "accept_header": JSON,
        "content_length": 1,
        "timeout": 60,
    }
    return json_value({**seen, **changes})


CONTEXT = [
    Script(
        "context_fields",
        rows=[
            Row("defaults", "x", context(), content_type=None),
            Row(
                "verbatim headers",
                "xy",
                context(
                    request_content_type='Text/CSV; Charset="x"',
                    accept_header="application/json;q=0.9, */*",
                    content_length=2,
                ),
                'Text/CSV; Charset="x"',
                accept="application/json;q=0.9, */*",
            ),
            Row("in chunks", [b"x", b"y"], context(content_length=None)),
            Row("empty", "", context(content_length=0)),
            Row("attributes of others", "x", context(custom_attributes="trace=1, b"), attributes="trace=1, b"),
            Row(
                "all attributes",
                "x",
                context(
                    model_name="half_plus_three",
                    model_version="123",
                    method="regress",
                    rest_uri="http://localhost:$rest_port/v1/models/half_plus_three/versions/123:regress",
                    custom_attributes="a=b,tfs-model-name=half_plus_three,tfs-model-version=123,tfs-method=regress",
                ),
                attributes="a=b,tfs-model-name=half_plus_three,tfs-model-version=123,tfs-method=regress",
            ),
            Row(
                "only a version",
                "x",
                context(
                    model_version="123",
                    rest_uri="http://localhost:$rest_port/v1/models/half_plus_three/versions/123:predict",
                    custom_attributes="tfs-model-version=123",
                ),
                attributes="tfs-model-version=123",
            ),
            Row(
                "a model that is not there",
                "x",
                context(
                    model_name="absent",
                    method="classify",
                    rest_uri="http://localhost:$rest_port/v1/models/absent:classify",
                    custom_attributes="tfs-method=classify,tfs-model-name=absent",
                ),
                attributes="tfs-method=classify,tfs-model-name=absent",
            ),
        ],
    ),
    Script(
        "context_fields",
        title="with a longer deadline",
        settings={"SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS": "90"},
        rows=[Row("timeout", "x", context(timeout=90))],
    ),
    Script(
        "context_in_pair",
        rows=[
            Row("the same in both", "{}", json_value({"same": True, "method": None, "version": None})),
            Row(
                "with attributes",
                "{}",
                json_value({"same": True, "method": "regress", "version": "124"}),
                CSV,
                accept=JSON_LINES,
                attributes="tfs-method=regress,tfs-model-version=124",
            ),
        ],
    ),
    Script(
        "context_namedtuple",
        rows=[
            Row(
                "a named tuple",
                "{}",
                json_value(
                    {
                        "name": "Context",
                        "fields": [
                            "model_name",
                            "model_version",
                            "method",
                            "rest_uri",
                            "grpc_port",
                            "channel",
                            "custom_attributes",
                            "request_content_type",
                            "accept_header",
                            "content_length",
                            "timeout",
                        ],
                        "is a tuple": True,
                        "length": 11,
                        "as dict": True,
                        "replaced": ["classify", PLAIN, "predict", True],
                        "unpacked": [None, "predict", True, True],
                        "by index": [True, True, True],
                        "made": 10,
                        "equal": True,
                        "content length": 2,
                        "attributes": "tfs-method=predict",
                        "types": ["str", "int", "str"],
                        "assigned": "AttributeError",
                    }
                ),
                attributes="tfs-method=predict",
            )
        ],
    ),
]

LINES = "first,1\nsecond\r,2\n\nlast,3"
LARGE = b"0123456789abcde\n" * (1 << 19)  # 8 MiB
LARGE_HASH = hashlib.sha256(LARGE).hexdigest()

DATA = [
    Script(
        "data_reading",
        rows=[
            Row("read", "all", json_value(["all", "", ""]), attributes="read"),
            Row("read bytes", b"\x00\xff", json_value(["\x00\xff", "", ""]), attributes="read"),
            Row("read nothing", "", json_value(["", "", ""]), attributes="read"),
            Row("read in chunks", [b"on", b"e"], json_value(["one", "", ""]), attributes="read"),
            Row("read some", "12345678", json_value(["123", "", "4567", "8", ""]), attributes="read some"),
            Row(
                "readline",
                LINES,
                json_value(["first,1\n", "second\r,2\n", "\nl", "ast,3", "", ""]),
                attributes="readline",
            ),
            Row(
                "readlines",
                LINES,
                json_value(["first,1\n", "second\r,2\n", "\n", "last,3", 0]),
                attributes="readlines",
            ),
            Row("iterate", "a\nb\n\n c", json_value(["a", "b", "", "c"]), attributes="iterate"),
            Row("next", "a\nb\nc\nd", json_value(["a\n", "b\n", "c\nd"]), attributes="next"),
            Row("wrapped as text", "a\r\ngröße\n", json_value(["a\n", "größe\n"]), attributes="wrapped"),
            Row("json.load", '{"a": [1]}', json_value([{"a": [1]}]), attributes="json.load"),
            Row("pandas", "a,1\nb,2\n", json_value([1, 2]), attributes="pandas"),
            Row("untouched", "x" * 100_000, json_value([]), attributes="untouched"),
            Row("pieces", LARGE, json_value([len(LARGE), LARGE_HASH, len(LARGE)]), OCTETS, attributes="pieces"),
            Row(
                "pieces of chunks",
                [LARGE[: 1 << 22], LARGE[1 << 22 :]],
                json_value([len(LARGE), LARGE_HASH, None]),
                OCTETS,
                attributes="pieces",
            ),
        ],
    ),
    Script("big_bodies", rows=[Row("8 MiB", LARGE, text(f"{len(LARGE)} {LARGE_HASH}"), OCTETS)]),
]

# What input_handler returns is what the model gets, and here sends back.
INPUT_RESULTS = [
    Script(
        "input_results",
        rows=[
            Row("str", "str", text('{"größe": "模型 \U0001f600"}', OCTETS)),
            Row("bytes", "bytes", text(bytes(range(256)), OCTETS)),
            Row("bytearray", "bytearray", text("some bytes", OCTETS)),
            Row("empty str", "empty str", text("", OCTETS)),
            Row("empty bytes", "empty bytes", text("", OCTETS)),
            Row("None", "none", text("", OCTETS)),
            Row("no return", "nothing returned", text("", OCTETS)),
            Row("a form", "dict", text(f"name=two+words+%26+more&list=a&list=b&{quote_plus('größe')}=1", OCTETS)),
            Row("an empty form", "empty dict", text("", OCTETS)),
            Row("a form of pairs", "pairs", text("a=1&b=2&a=3", OCTETS)),
            Row("a file", "file", text('{"instances": [1.0]}\n', OCTETS)),
            Row("BytesIO", "BytesIO", text("from memory", OCTETS)),
            Row("the rest of a file", "moved", text("sent", OCTETS)),
            Row("an own file-like object", "reader", text("read by and by", OCTETS)),
            Row("a generator", "generator", text("[0,1,2,]", OCTETS)),
            Row(
                "a long generator",
                "long generator",
                text("[" + "".join(f"{number}," for number in range(20000)) + "]", OCTETS),
            ),
            Row("an empty generator", "empty generator", text("", OCTETS)),
            Row("an iterable", "iterable", text("one,two", OCTETS)),
            Row("a map", "map", text("abc", OCTETS)),
            Row("a generator that fails", "late error", error("row 1 is broken")),
            Row("an int", "int", error_with("")),
            Row("a lone surrogate", "surrogate", error_with("surrogates not allowed")),
            Row("an unknown kind", "other", error("'other'")),
        ],
    )
]

GOOD_RESULTS = [
    Row("a tuple", "tuple", text("text")),
    Row("a list", "list", text("text")),
    Row("a generator of two", "generator", text('{"by": "and by"}', JSON)),
    Row("a map", "map", text("text")),
    Row("a named tuple", "namedtuple", text("text")),
    Row("an iterator", "iterator", text("text")),
    Row("a dict with two keys", "dict of two keys", text("body", "type")),
    Row("a str of two characters", "string of two", text("a", "b")),
    Row("a str body", "non-ascii", text("größe 模型 \U0001f600", "text/plain; charset=utf-8")),
    Row("a bytes body", "bytes", text(bytes(range(256)), OCTETS)),
    Row("an empty str body", "empty str", text("")),
    Row("an empty bytes body", "empty bytes", text("")),
    Row("a subclass of str", "subclass", text("more", "text/html")),
    Row("a large body", "large", text("0123456789" * 500_000)),
    Row("an odd content type", "odd type", text("x", "application/vnd.our-own+json; version=2")),
]
TOO_MANY = "too many values to unpack (expected 2)"
TOO_FEW = "not enough values to unpack (expected 2, got {})".format
NOT_ITERABLE = "cannot unpack non-iterable {} object".format
BAD_RESULTS = [
    Row("None", "nothing", error(NOT_ITERABLE("NoneType"))),
    Row("three values", "three values", error(TOO_MANY)),
    Row("one value", "one value", error(TOO_FEW(1))),
    Row("a single str", "only the body", error(TOO_MANY)),
    Row("single bytes", "only bytes", error(TOO_MANY)),
    Row("a dict", "dict", error(TOO_FEW(1))),
    Row("a float", "number", error(NOT_ITERABLE("float"))),
    Row("True", "true", error(NOT_ITERABLE("bool"))),
    Row("an empty tuple", "empty", error(TOO_FEW(0))),
    Row("a generator of one", "short generator", error(TOO_FEW(1))),
    Row("a generator that fails", "failing generator", error("no type for this body")),
    Row("an int body", "int body", error_with("int")),
    Row("a dict body", "dict body", error_with("dict")),
    Row("a list body", "list body", error_with("list")),
    Row("an int content type", "int type", error_with("int")),
    Row("a lone surrogate", "surrogate", error_with("surrogates not allowed")),
    # Which text does not matter; what matters is that nothing gets into the answer's head.
    Row("a line break in the content type", "line break in type", error_with("")),
]
RESULTS = [
    Script("output_results", rows=GOOD_RESULTS + BAD_RESULTS),
    Script("handler_results", rows=GOOD_RESULTS + BAD_RESULTS),
]

RAISED = {
    "value_error": error("the input has 3 columns, not 4"),
    "odd_text": error('größe "模型" \\ back\tslash\n{"error": \'x\'} \U0001f600 \x00\x1f'),
    "own": error("field 'x' cannot be -1"),
    "key_error": error("'instances'"),
    "attribute_error": error("'NoneType' object has no attribute 'shape'"),
    "json_error": error("Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    "unicode_error": error("'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    "two_arguments": error("('unsupported', 415)"),
    "no_text": error(""),
    "assertion": error("sums are wrong"),
    "bare_assertion": error(""),
    "chained": error("the request has no rows"),
    "while_handling": error("and the cure failed"),
    "recursion": error_with("maximum recursion depth exceeded"),
    "deep_json": error_with("maximum recursion depth exceeded"),
    "str_fails": error_with(""),
    "str_is_wrong": error_with(""),
    "surrogate": error_with("surrogate"),
    "long": error_with("long long long"),
    "exit": error("cannot go on"),
    "exit_code": error("3"),
    "quit": error(""),
    "interrupt": error(""),
    "cancelled": error("given up"),
    "generator_exit": error("closed"),
    "stop_iteration": error(""),
    "unusual": error("unusual indeed"),
    "memory": error("no room for 99 rows"),
    "os_error": error("[Errno 2] No such file or directory: '/nowhere/labels.json'"),
}
STILL_THERE = Row("the host is still there", "nothing", text("nothing raised"))
TRACEBACKS = (
    "Traceback (most recent call last)",
    "in _value_error",
    "ValueError: the input has 3 columns, not 4",
    "KeyError: 'instances'",
    "The above exception was the direct cause of the following exception",
    "During handling of the above exception, another exception occurred",
    "raising.ModelInputError: field 'x' cannot be -1",
)


def raising(where):
    return [Row(kind.replace("_", " "), where + kind, answer) for kind, answer in RAISED.items()]


def model_error(status, message):
    """A request that makes the fake model server answer so."""
    return json.dumps({"fake": {"status": status, "body": message}})


ERRORS = [
    Script(
        "exceptions",
        rows=[
            *raising(""),
            STILL_THERE,
            *[Row(f"{row.name} in output_handler", row.request, row.answer) for row in raising("output:")],
            STILL_THERE,
        ],
        log=TRACEBACKS,
        once=("exceptions is loaded",),
    ),
    Script(
        "exceptions_in_handler",
        rows=[*raising(""), STILL_THERE],
        log=TRACEBACKS,
        once=("exceptions_in_handler is loaded",),
    ),
    Script(
        "model_errors",
        rows=[
            Row(
                "answered by the script",
                model_error(404, {"error": "no such model"}),
                json_value({"status": 404, "message": "no such model"}),
            ),
            Row(
                "raised by the script",
                model_error(400, '{ "error": "Bad \\"x\\"" }'),
                error('{ "error": "Bad \\"x\\"" }'),
            ),
            Row("no JSON", model_error(503, "größe"), error("größe")),
            # The answer of output_handler is an answer, whatever the model said.
            Row("not looked at", model_error(500, "passed on"), text("passed on", "text/plain; status=500")),
            Row("overloaded", model_error(429, "later"), text("later", "text/plain; status=429")),
            Row("nothing wrong", "{}", text("{}", "text/plain; status=200")),
        ],
    ),
]

MODULES = [
    Script(
        "module_state",
        rows=[
            Row("first", "one two", json_value({"count": 1, "numbers": [1, 2], "computed": 2})),
            Row("second", "two three", json_value({"count": 2, "numbers": [2, 3], "computed": 3})),
            Row("an error between", "four", error("'four'")),
            Row("fourth", "one", json_value({"count": 4, "numbers": [1], "computed": 4})),
        ],
        once=("module_state is loaded",),
    ),
    Script(
        "lazy_model",
        rows=[
            Row("first", '{"words": ["good", "bad", "new"]}', json_value({"score": -1})),
            Row("second", '{"words": ["fine"]}', json_value({"score": 1}, "a/b"), accept="a/b"),
        ],
        log=("nothing loaded yet: None",),
        once=("weights loaded: 3",),
    ),
    Script(
        "text_words",
        rows=[
            Row(
                "files beside the script",
                "Größe, model 模型!\nsmall models\n",
                text("ungerade 奇\t2 3 4 0 0 0\ngerade\t5 1 0 0 0 0\n", "text/tab-separated-values; charset=utf-8"),
                "text/plain; charset=utf-8",
            ),
            Row("another type", "{}", error("text/plain is wanted")),
            Row("not UTF-8", b"\xff", error_with("'utf-8' codec can't decode byte 0xff"), PLAIN),
        ],
    ),
    Script(
        "json_lines",
        rows=[
            Row(
                "lines to lines",
                '{"features": 1}\r\n\n{"features": [2]}',
                text('{"prediction": 1}\n{"prediction": [2]}\n', JSON_LINES),
                JSON_LINES,
                accept=JSON_LINES,
            ),
            Row("a broken line", '{"features": 1}\n{"features"}', error_with("Expecting ':' delimiter"), JSON_LINES),
        ],
    ),
    Script(
        "lib_modules",
        rows=[
            Row(
                "imports",
                "lib",
                json_value(["LIB!", "beside the script", "a package in lib", "code", "imported in a call"]),
            )
        ],
        log=("requirements.txt",),
        # pip did not run.
        no_log=("there-is-no-such-package-here", "there_is_no_such_package_here"),
    ),
    Script(
        "program",
        settings={"SAGEMAKER_PROGRAM": "predictor.py"},
        rows=[Row("another file", "", text("inference predictor.py"))],
    ),
    Script("handler_wins", rows=[Row("handler", "x", text("handler"))]),
    Script(
        "callables", rows=[Row("methods and objects", "[1, 2]", json_value({"values": [10, 20], "kind": "Output"}))]
    ),
    Script(
        "second_stage",
        models=("demo", "half_plus_three"),
        rows=[
            Row(
                "another model",
                '{"next": "half_plus_three"}',
                json_value(
                    {
                        "base": "http://localhost:$rest_port",
                        "model": "demo",
                        "method": "predict",
                        "status": 200,
                        "second": {"next": "half_plus_three"},
                    }
                ),
            ),
            Row(
                "a model that is not there",
                '{"next": "absent"}',
                json_value(
                    {
                        "base": "http://localhost:$rest_port",
                        "model": "demo",
                        "method": "predict",
                        "status": 404,
                        "second": {"error": "Servable not found for request: Latest(absent)"},
                    }
                ),
            ),
        ],
    ),
    Script(
        "boto3_lazy",
        settings={
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_PROFILE": "default",
            "AWS_CONFIG_FILE": "$code/aws-config",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": "eu-west-1",
        },
        rows=[Row("a client", '{"key": "a-key"}', json_value({"region": "eu-west-1", "key": True, "same": True}))],
    ),
    Script(
        "nothing_installed",
        settings={"PYTHONPATH": "$code/without"},
        rows=[Row("neither requests nor grpc", "x", json_value({"found": False, "channel": "None", "port": True}))],
    ),
    Script(
        "requirements_there",
        rows=[Row("requirements.txt", "x", text("3 200"))],
        log=("Requirement already satisfied: requests", "Requirement already satisfied: numpy"),
    ),
]

ALWAYS = ("wort by print", "wort to stderr by print", "wort by write", "wort by buffer", "wort by descriptor 1")
ALWAYS += ("wort by descriptor 2", "wort by a child", "wort by warnings", "wort chatty debug")
ALWAYS += ("import: print", "import: stderr", "wort: two", "lines: wort", "wort größe 模型 \U0001f600")
ALWAYS += ("wort root critical", "wort named critical")
TRACEBACK = ("wort root error", "wort named error", "wort with traceback", "ValueError: wort caught")


def logs(level, seen, unseen, **settings):
    return Script(
        "logs",
        title="at " + level,
        settings={"SAGEMAKER_GUNICORN_LOGLEVEL": level, **settings},
        rows=[Row("logging", "wort", text(f"{level.upper()} True False"))],
        log=(*ALWAYS, *seen),
        no_log=unseen,
    )


def at(*levels):
    return tuple(f"wort {logger} {level}" for level in levels for logger in ("root", "named"))


PROCESS = [
    logs("debug", (*TRACEBACK, *at("debug", "info", "warning")), ()),
    logs("info", (*TRACEBACK, *at("info", "warning"), "import: root info"), at("debug")),
    logs("warning", (*TRACEBACK, *at("warning")), at("debug", "info")),
    # Text is UTF-8 where the locale does not say so, too: python3 does the same.
    logs("critical", (), (*TRACEBACK, *at("debug", "info", "warning")), LC_ALL="C"),
    Script(
        "module_facts",
        rows=[
            Row(
                "at import",
                "at import",
                json_value(
                    {"name": "inference", "file": "$code/inference.py", "in sys.modules": False, "main thread": True}
                ),
            ),
            Row("in a call", "in a call", json_value(["inference", False, True])),
            Row("sys.path", "path", json_value(True)),
            Row("sys.executable", "executable", json_value(["$python_folder", "python3"])),
            Row("the virtual environment", "prefix", json_value([sys.prefix, sys.prefix != sys.base_prefix])),
            Row("-m pip", "pip", json_value("pip")),
            Row("-m pip is the environment's", "pip's place", json_value(True)),
            Row("the version", "version", json_value(list(sys.version_info[:2]))),
            Row("the version of sys.executable", "same version", json_value(str(list(sys.version_info[:2])))),
            Row("sys.argv", "argv", json_value(True)),
            Row("standard input is nobody's", "stdin", json_value(True)),
            Row("children can be waited for", "child's exit", json_value(7)),
            Row("flags", "flags", json_value([0, 0, 0])),
            Row("encodings", "encodings", json_value(["utf-8", "utf-8", "utf-8"])),
        ],
    ),
    Script(
        "signals",
        rows=[
            Row("a signal", "x", text("SIGUSR1")),
            Row("a limit of one's own", "alarm", error("the limit has passed")),
            Row("a signal again", "x", text("SIGUSR1,SIGUSR1")),
        ],
    ),
    Script("asyncio_run", rows=[Row("coroutines", "[1, 2, 3]", json_value([2, 4, 6]))]),
    Script("asyncio_pair", rows=[Row("a child of asyncio", "abc", text("ABC 0")), Row("again", "d", text("D 0"))]),
    Script(
        "working_directory",
        rows=[Row("files", b"some \x00 bytes", json_value({"listed": True, "size": 12, "same": True}))],
    ),
    Script(
        "environment",
        settings={"OMP_NUM_THREADS": "", "OUR_OWN_SETTING": "größe, 1 = 1"},
        rows=[
            Row(
                "one instance",
                "",
                json_value(
                    {
                        "TFS_DEFAULT_MODEL_NAME": "half_plus_three",
                        "OMP_NUM_THREADS": "1",
                        "SAGEMAKER_TFS_INSTANCE_COUNT": "1",
                        "OUR_OWN_SETTING": "größe, 1 = 1",
                        "grpc": ["$grpc_port"],
                        "rest": ["$rest_port"],
                        "ours": [True, True],
                    }
                ),
            )
        ],
    ),
    Script(
        "environment",
        title="with two instances",
        models=("demo", "half_plus_three"),
        instances=2,
        settings={"OMP_NUM_THREADS": "3", "SAGEMAKER_TFS_DEFAULT_MODEL_NAME": "half_plus_three"},
        rows=[
            Row(
                "two instances",
                "",
                json_value(
                    {
                        "TFS_DEFAULT_MODEL_NAME": "half_plus_three",
                        "OMP_NUM_THREADS": "3",
                        "SAGEMAKER_TFS_INSTANCE_COUNT": "2",
                        "OUR_OWN_SETTING": None,
                        "grpc": ["$grpc_port", "$grpc_port_1"],
                        "rest": ["$rest_port", "$rest_port_1"],
                        "ours": [True, True],
                    }
                ),
            )
        ],
    ),
]

# One call with one client hides what happens when calls overlap. Of these, eight clients send each row at once, each
# request with a mark of its own, once where gevent is installed and once where it is not.
MARK = [Row("a mark", "$mark", text("$mark"), PLAIN)]
HABITS = [
    Script("habit_global", MARK),
    Script("habit_file", MARK),
    Script("habit_sqlite", MARK),
    Script("habit_alarm", MARK),
    Script("habit_thread_local", MARK),
    Script("habit_event_loop", MARK),
    Script("habit_asyncio_run", MARK),
    Script("habit_main_thread", MARK),
    Script("habit_session", MARK),
    Script("habit_processes", MARK),
    Script("habit_threads", MARK),
    Script("habit_fork", MARK),
    Script("habit_fork_left", MARK),
    Script("habit_set_event_loop", MARK),
    Script("habit_context", MARK),
    Script("asks_model", [Row("a mark", "$mark", text("$mark", OCTETS), PLAIN)]),
]


def left_behind(what):
    """A request that leaves something behind, and one during which that strikes."""
    return [Row(what, what, text(what), PLAIN), Row(f"during {what}", "rest", text("rest"), PLAIN)]


def patched(folder, name, answer):
    settings = {"SAGEMAKER_GUNICORN_WORKER_CLASS": name}
    return Script(folder, [Row("a request", "x", text(answer), PLAIN)], title=f"in {name}", settings=settings)


GEVENT = [
    Script(
        "gevent_own",
        rows=[
            Row("GreenletExit", "greenlet_exit", error("gone")),
            Row("a call that is killed", "killed", error("")),
            Row("a time limit", "timeout", error("too slow")),
            *left_behind("leave_timeout"),
            *left_behind("leave_alarm"),
            *left_behind("leave_interrupt"),
            *left_behind("leave_exit"),
            *left_behind("leave_failure"),
            # This one is for all calls that are running, and for none that comes later.
            Row("who kills all", "leave_killer", text("leave_killer"), PLAIN),
            Row("is killed", "rest", error("")),
            Row("the host is still there", "rest", text("rest"), PLAIN),
        ],
        once=("Python worker 0: loaded",),
    ),
    # As in gunicorn's gevent worker.
    Script(
        "gevent_thread_local",
        rows=[Row(name, "x", text("nothing"), PLAIN) for name in ("not of the import", "not of another call")],
    ),
    patched("gevent_patched", "gevent", "True True"),
    patched("gevent_patched", "sync", "False False"),
    patched("gevent_patched", "gthread", "False False"),
    patched("gevent_patched_pair", "gevent", "x True True"),
    patched("gevent_patched_pair", "sync", "x False True"),
]

# A forked process that comes out of a call, or out of the import, does not serve beside its parent.
FORKS = [
    Script(
        folder,
        MARK * 3,
        title=f"in {name}",
        settings={"SAGEMAKER_GUNICORN_WORKER_CLASS": name},
        log=("it ends",),
        once=("Python worker 0: loaded",),
    )
    for folder in ("habit_fork_left", "fork_left_pair", "fork_at_import")
    for name in ("gevent", "sync", "gthread")
]

SCRIPTS = [*WITH_TENSORFLOW, *CONTEXT, *DATA, *INPUT_RESULTS, *RESULTS, *ERRORS, *MODULES, *PROCESS, *GEVENT, *FORKS]

REFUSED = [
    Refused("refused_no_handler", ("handler", "input_handler", "output_handler")),
    Refused("refused_only_input", ("output_handler",)),
    Refused("refused_only_output", ("input_handler",)),
    Refused(
        "refused_import_error",
        (
            "Traceback (most recent call last)",
            "MODEL = load()",
            "ModuleNotFoundError: No module named 'a_module_that_nobody_has'",
        ),
    ),
    Refused("refused_syntax_error", ("inference.py", "SyntaxError: invalid syntax")),
    Refused("refused_exit", ("the weights are missing",)),
    Refused(
        "refused_requirements",
        ("requirements.txt", "No matching distribution found for there-is-no-such-package-here==1.0"),
    ),
]
