"""Pictures of any kind and size in; the model gets PNG files of one size, as base64."""
import base64
import io
import json

from PIL import Image

HEIGHT, WIDTH = 6, 8


def input_handler(data, context):
    if context.request_content_type.startswith("image/") or context.request_content_type == "application/x-image":
        image = Image.open(io.BytesIO(data.read())).convert("RGB")
        image = image.resize((WIDTH, HEIGHT), Image.BILINEAR)
        buffered = io.BytesIO()
        image.save(buffered, format="PNG")
        encoded = base64.b64encode(buffered.getvalue()).decode("utf-8")
        return json.dumps({"instances": [{"b64": encoded}]})
    raise ValueError("not a picture: " + context.request_content_type)


def output_handler(response, context):
    if response.status_code != 200:
        raise ValueError(response.content.decode("utf-8"))
    prediction = response.json()["predictions"][0]
    if context.accept_header == "image/png":
        grey = int(prediction["mean"])
        out = io.BytesIO()
        Image.new("L", (1, 1), grey).save(out, "PNG")
        return out.getvalue(), context.accept_header
    return json.dumps(prediction), "application/json"
