"""Reads the cases. A case is a folder of `cases/` with a script and what becomes of it.

`inference.py` and all that belongs to it is laid out as in the `code` folder of a model archive. `requests.yaml` has
these keys, none of which is required:

| key | meaning |
|---|---|
| `requests` | what the server gets, one after the other |
| `log`, `no log`, `once` | parts of lines that must be in the log, must not be there, must be there exactly once |
| `models` | the models that the server has; half_plus_three by default |
| `tensorflow` | `true`: the models run on TensorFlow; otherwise the fake model server answers with the request it got |
| `instances` | the number of instances |
| `settings` | environment variables; `$run` is the title of the run |
| `missing` | a folder of `missing/`: packages that cannot be imported |
| `script` | the folder with the script, if not this one |
| `files` | texts of files that the script's folder has in addition |
| `clients` | this many clients send all requests ten times, all at once; a second test does so without gevent |
| `runs` | a test for each of these titles, whose keys are added to the ones above or replace them |

A request has these:

| key | meaning |
|---|---|
| `send` | the body; a list is sent in chunks |
| `type`, `accept`, `attributes` | headers: Content-Type (application/json by default), Accept, the custom attributes |
| `headers` | other headers |
| `text`, `json` | the answer's body, to the byte or by its value; by default it is the body that was sent |
| `error`, `error with` | the text of the error in the answer, or a part of it |
| `answer type`, `status` | content type and status of the answer, where they are not the usual ones of these |
| `answer headers` | headers that the answer must have, or, with null, must not have |

Texts may hold the names of `HandlerCase.check_request`, as `$mark`. `!python` makes a text an expression.
"""

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template

import numpy as np
import yaml
from PIL import Image

from tests.harness.constants import JSON

CASES = Path(__file__).parent / "cases"
Loader = type("Loader", (yaml.SafeLoader,), {})
NO_GEVENT = "gevent is not installed, so each worker runs one call of handler at a time"


@dataclass
class Request:
    send: object
    type: str | None = JSON
    accept: str | None = None
    attributes: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    text: str | bytes | None = None
    json: object = None
    error: str | None = None
    error_with: str | None = None
    answer_type: str | None = None
    status: int | None = None
    answer_headers: dict[str, str | None] = field(default_factory=dict)


@dataclass
class Case:
    script: str
    title: str = ""
    requests: list[Request] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    no_log: list[str] = field(default_factory=list)
    once: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=lambda: ["half_plus_three"])
    tensorflow: bool = False
    instances: int = 1
    settings: dict[str, str] = field(default_factory=dict)
    missing: str | None = None
    clients: int | None = None
    files: dict[str, str] = field(default_factory=dict)


def picture(kind, size, gray, mode="RGB"):
    out = io.BytesIO()
    Image.new(mode, size, gray if mode == "L" else (gray, gray, gray)).save(out, kind)
    return out.getvalue()


def npy(values, dtype):
    out = io.BytesIO()
    np.save(out, np.array(values, dtype))
    return out.getvalue()


def npz(zeros):
    out = io.BytesIO()
    np.savez_compressed(out, x=np.zeros(zeros, np.uint8))
    return out.getvalue()


Loader.add_constructor("!python", lambda loader, node: eval(node.value, {"picture": picture, "npy": npy, "npz": npz}))


def read_cases():
    """The cases by their names, which are folder and title."""
    cases = {}
    for path in sorted(CASES.glob("*/requests.yaml")):
        folder = path.parent.name
        common = yaml.load(path.read_text(), Loader)
        for title, changes in common.pop("runs", {"": {}}).items():
            settings = filled({**common.get("settings", {}), **changes.get("settings", {})}, {"run": title})
            case = made(Case, {"script": folder, "title": title, **common, **changes, "settings": settings})
            case.requests = [made(Request, request) for request in case.requests]
            for variant in [case] if case.clients is None else with_and_without_gevent(case):
                name = f"{folder} {variant.title}".strip().replace(" ", "_")
                assert name not in cases, name
                cases[name] = variant
    return cases


def made(kind, keys):
    return kind(**{key.replace(" ", "_"): value for key, value in keys.items()})


def with_and_without_gevent(case):
    title = f"{case.title} without gevent".strip()
    without = replace(case, title=title, missing="gevent", once=[*case.once, NO_GEVENT])
    return [replace(case, no_log=[*case.no_log, NO_GEVENT]), without]


def filled(value, names):
    """`value` with its `$names` filled in, in all texts it is made of."""
    if isinstance(value, str):
        return Template(value).safe_substitute(names)
    if isinstance(value, dict):
        return {key: filled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, names) for item in value]
    return value
