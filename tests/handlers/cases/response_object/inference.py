"""Uses all that the model's answer has."""

import json


def input_handler(data, context):
    return data.read()


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
    try:
        headers["X-Absent"]
    except KeyError:
        seen["absent"].append("KeyError")
    return json.dumps(seen), "application/json"
