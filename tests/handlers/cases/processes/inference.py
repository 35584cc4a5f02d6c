"""Says which process answers; none answers before two have a request."""
import os
import time


def handler(data, context):
    folder = data.read().decode()
    open(os.path.join(folder, str(os.getpid())), "w").close()
    end = time.monotonic() + 60
    while len(os.listdir(folder)) < 2:
        if time.monotonic() > end:
            raise RuntimeError("there is no second process")
        time.sleep(0.01)
    return str(os.getpid()), "text/plain"
