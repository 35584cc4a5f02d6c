def handler(data, context):
    return "a" "b",, "text/plain"
