"""From a model's output arrays to the JSON of a REST response, in TFS's layout.

Rows (`predictions`), classifications and regressions stand on single lines, columns (`outputs`) do not. A string output
is base64 in an object if its name ends in `_bytes`. TFS orders outputs by hash; here their names are sorted.
"""

import base64
import json
import math

import numpy as np

from local_model_server.errors import check, invalid_argument, type_name
from local_model_server.json_text import INDENT, quote


def predict_rows(outputs):
    names = sorted(outputs)
    depth = 3 if len(names) > 1 else 2  # {, [ and, for several outputs, {
    columns, batch = [], None
    for name in names:
        array = outputs[name]
        check(array.ndim, f"Tensor name: {name} has no shape information ")
        size = len(array)
        check(size, f"Tensor name: {name} has invalid batch size: {size}")
        batch = batch or size
        check(size == batch, f"Tensor name: {name} has inconsistent batch size: {size} expecting: {batch}")
        columns.append(map(_line, _texts(name, array, depth + array.ndim - 1)))
    if len(names) == 1:
        return _object(["predictions"], [f"[{', '.join(columns[0])}\n{INDENT}]"])
    rows = ",".join(f"\n{INDENT * 2}{_object(names, row, 3)}" for row in zip(*columns))
    return _object(["predictions"], [f"[{rows}\n{INDENT}]"])


def predict_columns(outputs):
    names = sorted(outputs)
    depth = 2 if len(names) > 1 else 1
    columns = [_lines(_texts(name, outputs[name], depth + outputs[name].ndim), depth) for name in names]
    return _object(["outputs"], columns if len(names) == 1 else [_object(names, columns, 2)])


def classifications(labels, scores):
    rows = zip(_texts("classes", labels, 0), _texts("scores", scores, 0), strict=True)
    lines = [_line([list(pair) for pair in zip(*row, strict=True)]) for row in rows]
    return _object(["results"], [f"[{', '.join(lines)}\n{INDENT}]"])


def regressions(values):
    # Unlike the others TFS closes this array while it still writes single lines.
    return _object(["results"], [_line(_texts("outputs", values.ravel(), 0))])


def _object(names, texts, depth=1):
    members = ",\n".join(f"{INDENT * depth}{quote(name)}: {text}" for name, text in zip(names, texts))
    return f"{{\n{members}\n{INDENT * (depth - 1)}}}"


def _line(texts):
    """Nested lists of texts on one line."""
    return f"[{', '.join(map(_line, texts))}]" if isinstance(texts, list) else texts


def _lines(texts, depth):
    """The same with a line for each text, inside `depth` arrays and objects."""
    if not isinstance(texts, list) or not texts:
        return _line(texts)
    inner = "\n" + INDENT * (depth + 1)
    return f"[{inner}{(',' + inner).join(_lines(text, depth + 1) for text in texts)}\n{INDENT * depth}]"


def _texts(name, array, depth):
    """The JSON texts of the values in nested lists; each text stands inside `depth` arrays and objects."""
    values = array.ravel().tolist()
    if array.dtype in (np.float32, np.float64):
        texts = _decimals(array.ravel())
    elif array.dtype == np.bool_:
        texts = ["true" if value else "false" for value in values]
    elif array.dtype.kind in "iu" and array.dtype != np.uint16:
        texts = list(map(str, values))
    elif array.dtype == object and name.endswith("_bytes"):
        opening, closing = f'{{\n{INDENT * (depth + 1)}"b64": ', f"\n{INDENT * depth}}}"
        texts = [f'{opening}"{base64.b64encode(value).decode()}"{closing}' for value in values]
    elif array.dtype == object:
        texts = [quote(value.decode("utf-8", "surrogateescape")) for value in values]
    else:
        raise invalid_argument(f"Failed to write JSON value for tensor type: {type_name(array.dtype)}")
    return np.array(texts, object).reshape(array.shape).tolist()


def _decimals(array):
    """Six digits if they give the same value back, otherwise all (9 or 17); always with a point or an exponent."""
    digits = "%.9g" if array.dtype == np.float32 else "%.17g"
    values = array.tolist()
    texts = ["%g" % value for value in values]
    with np.errstate(over="ignore"):
        exact = np.array(list(map(float, texts)), array.dtype) == array
    for i in np.flatnonzero(~exact | ~np.isfinite(array)):
        texts[i] = digits % values[i] if math.isfinite(values[i]) else json.dumps(values[i])
    return [f"{text}.0" if text.lstrip("-").isdigit() else text for text in texts]
