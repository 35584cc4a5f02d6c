"""The queue of TFS's batching: which requests it takes, which wait, and which it turns away.

Requests share a place in the queue as they would share a batch, but each runs by itself: nothing is merged.
"""

import os
import threading
from dataclasses import dataclass, field

from local_model_server.status import ServingError, invalid_argument


@dataclass(eq=False)
class _Batch:
    size: int = 0
    tasks: int = 0
    has_begun: threading.Event = field(default_factory=threading.Event)


class Batching:
    """The parameters, and the threads, which all models share."""

    def __init__(self, parameters):
        def value(name, default):
            return getattr(parameters, name).value if parameters.HasField(name) else default

        self.max_batch_size = value("max_batch_size", 1000)
        self.max_enqueued_batches = value("max_enqueued_batches", 10)
        self.threads = threading.Semaphore(value("num_batch_threads", os.cpu_count() or 1))


class BatchQueue:
    """The queue of one version of a model."""

    def __init__(self, batching):
        self._batching = batching
        self._lock = threading.Lock()
        self._waiting = []

    def run(self, arrays, work):
        """What `work()` returns, once a thread is free for the batch that it is in."""
        batch, is_first = self._join(batch_size(arrays))
        if is_first:
            self._batching.threads.acquire()
            with self._lock:
                self._waiting.remove(batch)
            batch.has_begun.set()
        batch.has_begun.wait()
        try:
            return work()
        finally:
            with self._lock:
                batch.tasks -= 1
                if batch.tasks == 0:
                    self._batching.threads.release()

    def _join(self, size):
        most, enqueued = self._batching.max_batch_size, self._batching.max_enqueued_batches
        if size > most:
            raise invalid_argument(f"Task size {size} is larger than maximum input batch size {most}")
        with self._lock:
            is_first = not self._waiting or self._waiting[-1].size + size > most
            if is_first:
                if self._waiting and len(self._waiting) >= enqueued:
                    raise ServingError(
                        "UNAVAILABLE",
                        "The batch scheduling queue to which this task was submitted is full; currently "
                        f"{len(self._waiting)} batches enqueued and max_enqueued_batches is {enqueued}",
                    )
                self._waiting.append(_Batch())
            batch = self._waiting[-1]
            batch.size += size
            batch.tasks += 1
            return batch, is_first


def batch_size(arrays):
    sizes = {array.shape[0] if array.ndim else None for array in arrays}
    if None in sizes:
        raise invalid_argument("Batching session Run() input tensors must have at least one dimension")
    if len(sizes) > 1:
        raise invalid_argument("Batching session Run() input tensors must have equal 0th-dimension size")
    return sizes.pop() if sizes else 0
