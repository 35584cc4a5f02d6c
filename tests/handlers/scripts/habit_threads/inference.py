"""Has a pool of threads do the work."""
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(4)


def handler(data, context):
    words = data.read().decode().split()
    return " ".join(pool.map(str.upper, words)).lower(), "text/plain"
