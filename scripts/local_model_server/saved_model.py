"""One loaded SavedModel: its signatures, running tensors through its graph, and the queue of batching in front.

Exports of TensorFlow 1 and 2 take the same path, as in TFS: the graph with the tag `serve` in a Session.
"""

import functools
import os
import threading
from types import SimpleNamespace

import numpy as np
import tensorflow as tf
from grpc import StatusCode
from tensorflow.core.protobuf import config_pb2

from local_model_server.errors import ServingError, check, from_tensorflow, not_found


class SavedModel:
    """A SavedModel in a session of its own; `run` may be called from many threads at once."""

    def __init__(self, path, flags, queue=None):
        config = config_pb2.ConfigProto(
            intra_op_parallelism_threads=flags.tensorflow_intra_op_parallelism,
            inter_op_parallelism_threads=flags.tensorflow_inter_op_parallelism,
        )
        config.gpu_options.per_process_gpu_memory_fraction = flags.per_process_gpu_memory_fraction
        graph = tf.Graph()
        with graph.as_default():
            self._session = tf.compat.v1.Session(graph=graph, config=config)
            self.signatures = dict(_load(self._session, path).signature_def)
        self._queue = queue
        self._callable = functools.cache(self._make_callable)

    def run(self, feeds, fetches, timeout_ms=0):
        """The arrays of the tensors named in `fetches`, given {tensor name: array}. 0: no time limit."""
        names = tuple(sorted(feeds))
        arguments = [feeds[name] for name in names]
        try:
            run = functools.partial(self._callable(names, tuple(fetches), timeout_ms), *arguments)
            arrays = self._queue.run(arguments, run) if self._queue else run()
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error
        # A lone string comes as bytes, which numpy alone would make an array of fixed-length strings.
        return [np.asarray(array, object if isinstance(array, bytes) else None) for array in arrays]

    def _make_callable(self, feeds, fetches, timeout_ms):
        # Session.run refuses a value whose shape differs from the placeholder's static shape, and converts its type in
        # silence. TFS does neither, nor does a callable made from options, which only this private function makes.
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
        options.run_options.timeout_in_ms = max(timeout_ms, 0)
        return self._session._make_callable_from_options(options)


def _load(session, path):
    if not any(os.path.exists(f"{path}/saved_model.{ending}") for ending in ("pb", "pbtxt", "cpb")):
        raise not_found(f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}")
    try:
        return tf.compat.v1.saved_model.loader.load(session, ["serve"], path)
    except tf.errors.OpError as error:
        raise from_tensorflow(error) from error
    except OSError as error:
        raise ServingError(StatusCode.DATA_LOSS, f"Can't parse {path}/saved_model.pb as binary proto") from error
    except Exception as error:  # TensorFlow raises many kinds: for an unknown operation, or another tag
        raise ServingError(StatusCode.INTERNAL, f"Failed to load {path}: {error}") from error


class BatchQueue:
    """The queue of one version of a model; all share the `threads`, a semaphore.

    Requests share a place in the queue as they would share a batch, but each runs by itself.
    """

    def __init__(self, threads, parameters):
        self._threads = threads
        self._max_size = parameters["max_batch_size"]
        self._max_enqueued = parameters["max_enqueued_batches"]
        self._lock = threading.Lock()
        self._waiting = []

    def run(self, arrays, work):
        """What `work()` returns, once a thread is free for the batch that it is in."""
        batch, is_first = self._join(_batch_size(arrays))
        if is_first:
            self._threads.acquire()
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
                    self._threads.release()

    def _join(self, size):
        check(size <= self._max_size, f"Task size {size} is larger than maximum input batch size {self._max_size}")
        with self._lock:
            enqueued = len(self._waiting)
            is_first = not enqueued or self._waiting[-1].size + size > self._max_size
            if is_first and enqueued and enqueued >= self._max_enqueued:
                raise ServingError(
                    StatusCode.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; currently "
                    f"{enqueued} batches enqueued and max_enqueued_batches is {self._max_enqueued}",
                )
            if is_first:
                self._waiting.append(SimpleNamespace(size=0, tasks=0, has_begun=threading.Event()))
            batch = self._waiting[-1]
            batch.size += size
            batch.tasks += 1
            return batch, is_first


def _batch_size(arrays):
    check(all(array.ndim for array in arrays), "Batching session Run() input tensors must have at least one dimension")
    sizes = {len(array) for array in arrays}
    check(len(sizes) < 2, "Batching session Run() input tensors must have equal 0th-dimension size")
    return sizes.pop() if sizes else 0
