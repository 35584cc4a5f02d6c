"""Imports what its requirements.txt names."""
import tiny_words


def handler(data, context):
    return tiny_words.join(data.read().decode()), "text/plain"
