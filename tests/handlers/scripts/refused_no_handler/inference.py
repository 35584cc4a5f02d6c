# The names are nearly right.
def handle(data, context):
    return data
