"""A CSV file with a header line in, CSV with another column out."""
import csv
import io
import json


def input_handler(data, context):
    if not context.request_content_type.startswith("text/csv"):
        raise TypeError("text/csv is wanted, not " + context.request_content_type)
    reader = csv.DictReader(io.StringIO(data.read().decode("utf-8-sig")))
    if "x" not in reader.fieldnames:
        raise ValueError("the column x is missing")
    return json.dumps({"instances": [float(row["x"]) for row in reader]})


def output_handler(response, context):
    response.raise_for_status()
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["y"])
    writer.writerows([value] for value in response.json()["predictions"])
    return out.getvalue(), "text/csv"
