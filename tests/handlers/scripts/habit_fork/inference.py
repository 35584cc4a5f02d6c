"""Has a forked process do the work, which waits meanwhile."""
import multiprocessing
import time

forked = multiprocessing.get_context("fork")


def _work(body, results):
    time.sleep(0.02)
    results.send(body)


def handler(data, context):
    results, other_end = forked.Pipe(duplex=False)
    process = forked.Process(target=_work, args=(data.read(), other_end))
    process.start()
    time.sleep(0.001)
    body = results.recv()
    process.join(60)
    return body, "text/plain"
