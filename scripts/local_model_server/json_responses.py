"""From a model's output arrays to the JSON of a REST response, in TFS's layout.

Rows (`predictions`), classifications and regressions stand on single lines, columns (`outputs`) do
not. A string output is base64 in an object if its name ends in `_bytes`, else a plain JSON string.
Where TFS orders by hash (the outputs), the order here is by name.
"""

import base64

import numpy as np

from local_model_server.dtypes import type_name
from local_model_server.json_writer import INDENT, decimals, nest, quote
from local_model_server.status import invalid_argument

_BYTES_SUFFIX = "_bytes"


def predict_rows(outputs):
    batch = _batch_size(outputs)
    several = len(outputs) > 1
    depth = 3 if several else 2  # {, [ and, for several outputs, {
    columns = [
        (name, array.shape[1:], _texts(name, array, depth + array.ndim - 1), array.size // batch)
        for name, array in sorted(outputs.items())
    ]
    rows = []
    for i in range(batch):
        row = [
            (name, nest(texts[i * size : (i + 1) * size], shape, depth, single_line=True))
            for name, shape, texts, size in columns
        ]
        if several:
            members = ",\n".join(f"{INDENT * 3}{quote(name)}: {text}" for name, text in row)
            rows.append(f"\n{INDENT * 2}{{\n{members}\n{INDENT * 2}}}")
        else:
            rows.append(row[0][1])
    return _document("predictions", f"[{(',' if several else ', ').join(rows)}\n{INDENT}]")


def predict_columns(outputs):
    several = len(outputs) > 1
    depth = 2 if several else 1
    members = []
    for name, array in sorted(outputs.items()):
        texts = _texts(name, array, depth + array.ndim)
        members.append((name, nest(texts, array.shape, depth, single_line=False)))
    if not several:
        return _document("outputs", members[0][1])
    lines = ",\n".join(f"{INDENT * 2}{quote(name)}: {text}" for name, text in members)
    return _document("outputs", f"{{\n{lines}\n{INDENT}}}")


def classifications(results):
    """`results` is a list, an entry an example, of lists of (label, score)."""
    lines = []
    for classes in results:
        scores = decimals([score for _, score in classes], np.float32)
        pairs = (f"[{quote(label)}, {score}]" for (label, _), score in zip(classes, scores))
        lines.append(f"[{', '.join(pairs)}]")
    return _document("results", f"[{', '.join(lines)}\n{INDENT}]")


def regressions(values):
    # Unlike the others TFS closes this array while it still writes single lines.
    return _document("results", f"[{', '.join(decimals(values, np.float32))}]")


def _document(key, text):
    return f"{{\n{INDENT}{quote(key)}: {text}\n}}"


def _batch_size(outputs):
    batch = 0
    for name, array in sorted(outputs.items()):
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        size = array.shape[0]
        if size < 1:
            raise invalid_argument(f"Tensor name: {name} has invalid batch size: {size}")
        if batch and size != batch:
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {size} expecting: {batch}"
            )
        batch = size
    return batch


def _texts(name, array, depth):
    """The JSON texts of the values in row-major order, each with `depth` brackets open around it."""
    values = array.ravel().tolist()
    if array.dtype in (np.float32, np.float64):
        return decimals(values, array.dtype)
    if array.dtype == np.bool_:
        return ["true" if value else "false" for value in values]
    if array.dtype.kind in "iu" and array.dtype != np.uint16:
        return list(map(str, values))
    if array.dtype == object and name.endswith(_BYTES_SUFFIX):
        opening, closing = f'{{\n{INDENT * (depth + 1)}"b64": ', f"\n{INDENT * depth}}}"
        return [f'{opening}"{base64.b64encode(value).decode()}"{closing}' for value in values]
    if array.dtype == object:
        return [quote(value.decode("utf-8", "surrogateescape")) for value in values]
    raise invalid_argument(f"Failed to write JSON value for tensor type: {type_name(array.dtype)}")
