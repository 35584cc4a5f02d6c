import json


def load():
    import a_module_that_nobody_has

    return a_module_that_nobody_has


MODEL = load()


def handler(data, context):
    return json.dumps(MODEL), "application/json"
