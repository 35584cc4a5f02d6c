"""A single handler on several threads, four of which meet."""
import threading

meeting = threading.Barrier(4, timeout=60)


def handler(data, context):
    meeting.wait()
    return "%d %s" % (threading.get_ident(), data.read().decode()), "text/plain"
