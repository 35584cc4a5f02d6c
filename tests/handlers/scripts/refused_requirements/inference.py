def handler(data, context):
    return "never", "text/plain"
