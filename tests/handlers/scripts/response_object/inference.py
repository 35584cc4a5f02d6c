"""Everything that is ever asked of the model's answer."""
import json


def input_handler(data, context):
    return data.read()


def output_handler(response, context):
    if context.custom_attributes and "raise" in context.custom_attributes:
        response.raise_for_status()
    headers = response.headers
    seen = {
        "status_code": response.status_code,
        "ok": response.ok,
        "reason": response.reason,
        "url": response.url,
        "encoding": response.encoding,
        "headers": [
            headers["content-type"],
            headers["CONTENT-TYPE"],
            headers.get("Content-Type"),
            "cOnTeNt-TyPe" in headers,
            headers.get("X-Absent"),
            headers.get("X-Absent", "no"),
            "X-Absent" in headers,
        ],
        "names": [name for name in headers if name.lower() == "content-type"] != [],
        "items": {name.lower(): value for name, value in headers.items()}["content-type"],
        "types": [type(response.content).__name__, type(response.text).__name__],
        "text is content": response.text.encode() == response.content,
        "json is text": response.json() == json.loads(response.text),
        "json with options": type(response.json(parse_float=str)).__name__,
        "pieces of 7": sorted({len(piece) for piece in response.iter_content(7)}, reverse=True)[0],
        "joined": b"".join(response.iter_content(chunk_size=5)) == response.content,
        "iterated": b"".join(response) == response.content,
        "lines": b"\n".join(response.iter_lines()) == response.content,
        "text lines": list(response.iter_lines(decode_unicode=True)) == response.text.splitlines(),
        "repr": isinstance(repr(response), str) and len(repr(response)) < 200,
        "again": response.content == response.content,
    }
    try:
        headers["X-Absent"]
    except KeyError:
        seen["absent"] = "KeyError"
    return json.dumps(seen), "application/json"
