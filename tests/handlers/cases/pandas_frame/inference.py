"""A data frame in: columns by name in any order, gaps filled. The best label of each row out."""

import json

import pandas as pd

DEFAULTS = {"sepal_length": 5.8, "sepal_width": 3.1, "petal_length": 3.8, "petal_width": 1.2}


def input_handler(data, context):
    if context.request_content_type == "text/csv":
        df = pd.read_csv(data)  # straight from the stream
    else:
        df = pd.DataFrame(json.loads(data.read()))
    df = df[list(DEFAULTS)].astype("float32").fillna(value=DEFAULTS)
    return json.dumps({"instances": df.values.tolist()})


def output_handler(response, context):
    if not response.ok:
        raise RuntimeError(response.text)
    labels = pd.DataFrame(response.json()["predictions"])[["label"]]
    if context.accept_header == "text/csv":
        return labels.to_csv(index=False), "text/csv"
    return labels.to_json(orient="records"), "application/json"
