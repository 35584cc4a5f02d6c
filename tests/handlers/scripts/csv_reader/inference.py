"""A CSV file with a header line in, CSV with an added column out."""
import csv
import io
import json

_columns = ["id", "x"]


def _read_csv(text):
    reader = csv.DictReader(io.StringIO(text))
    missing = [name for name in _columns if name not in (reader.fieldnames or [])]
    if missing:
        raise ValueError("columns are missing: %s" % ", ".join(missing))
    return list(reader)


def input_handler(data, context):
    if not context.request_content_type.startswith("text/csv"):
        raise TypeError("text/csv is wanted, not " + context.request_content_type)
    rows = _read_csv(data.read().decode("utf-8-sig"))
    return json.dumps({"instances": [float(row["x"]) for row in rows]})


def output_handler(response, context):
    response.raise_for_status()
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["y"])
    writer.writerows([value] for value in response.json()["predictions"])
    return out.getvalue(), "text/csv"
