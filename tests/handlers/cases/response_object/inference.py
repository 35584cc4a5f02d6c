"""Uses all that the model's answer has."""

import json


def input_handler(data, context):
    global sent
    sent = data.read()
    return sent


def output_handler(response, context):
    if "raise" in (context.custom_attributes or ""):
        response.raise_for_status()
    headers = response.headers
    seen = {
        "status": [response.status_code, response.reason, response.ok],
        "url": response.url,
        "encoding": response.encoding,
        "header": [headers["content-type"], headers["CONTENT-TYPE"], headers.get("Content-Type")],
        "is there": ["cOnTeNt-TyPe" in headers, "X-Absent" in headers],
        "absent": [headers.get("X-Absent"), headers.get("X-Absent", "no")],
        "names": [name for name in headers if name.lower() == "content-type"],
        "items": {name.lower(): value for name, value in headers.items()}["content-type"],
        "types": [type(value).__name__ for value in (response.content, response.text, response.json(parse_float=str))],
        "text": response.text.encode() == response.content,
        "json": response.json() == json.loads(response.text),
        "pieces": max(len(piece) for piece in response.iter_content(7)),
        "joined": b"".join(response.iter_content(chunk_size=5)) == b"".join(response) == response.content,
        "lines": b"\n".join(response.iter_lines()) == response.content,
        "text lines": list(response.iter_lines(decode_unicode=True)) == response.text.splitlines(),
        "repr": repr(response),
    }
    request, raw = response.request, response.raw
    types = [request.headers[name] for name in ("content-type", "content-length")]
    seen["request"] = [request.method, request.url, *types, request.body == sent]
    # A file that stays where it is.
    start = response.raw.read(3) + response.raw.read(2, decode_content=True)
    same = start + raw.read() == response.content
    seen["raw"] = [raw.status, raw.headers["Content-Type"], start == response.content[:5], same, raw.read().decode()]
    try:
        headers["X-Absent"]
    except KeyError:
        seen["absent"].append("KeyError")
    return json.dumps(seen), "application/json"
