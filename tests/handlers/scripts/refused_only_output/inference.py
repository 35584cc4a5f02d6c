def output_handler(response, context):
    return response.content, "application/json"
