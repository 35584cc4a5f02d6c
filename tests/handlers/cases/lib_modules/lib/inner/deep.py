from . import names


def name():
    return names.NAME
