"""One loaded SavedModel: its signatures, and running tensors through its graph.

Exports of TensorFlow 1 and 2 take the same path, as in TFS: the graph with tag `serve` in a Session.
"""

import os
import threading

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import config_pb2

from local_model_server.batching import BatchQueue
from local_model_server.status import ServingError, from_tensorflow, not_found

TAG = "serve"


class SavedModel:
    """A SavedModel in its own graph and session; `run` may be called from many threads at once."""

    def __init__(self, path, flags, batching=None):
        graph = tf.Graph()
        with graph.as_default():
            self._session = tf.compat.v1.Session(graph=graph, config=_session_config(flags))
            meta_graph = _load(self._session, path)
        self.signatures = dict(meta_graph.signature_def)
        self._queue = batching and BatchQueue(batching)
        self._callables = {}
        self._lock = threading.Lock()

    def run(self, feeds, fetches, timeout_ms=0):
        """The arrays of the tensors named in `fetches`, given {tensor name: array}. 0: no time limit."""
        names = tuple(sorted(feeds))
        run = self._callable(names, tuple(fetches), timeout_ms)
        arguments = [feeds[name] for name in names]
        try:
            if self._queue:
                arrays = self._queue.run(arguments, lambda: run(*arguments))
            else:
                arrays = run(*arguments)
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error
        # A lone string comes as bytes, which numpy alone would make an array of fixed-length strings.
        return [np.asarray(array, object if isinstance(array, bytes) else None) for array in arrays]

    def _callable(self, feeds, fetches, timeout_ms):
        # Session.run would refuse a value whose shape differs from the placeholder's static shape,
        # and convert its type in silence; TFS does neither. A callable made from options takes the
        # arrays as they are, like the C++ session under TFS. There is no public way to get one.
        key = (feeds, fetches, timeout_ms)
        with self._lock:
            if key not in self._callables:
                options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
                options.run_options.timeout_in_ms = max(timeout_ms, 0)
                try:
                    self._callables[key] = self._session._make_callable_from_options(options)
                except tf.errors.OpError as error:
                    raise from_tensorflow(error) from error
            return self._callables[key]


def _session_config(flags):
    """The ConfigProto of every session, from the command line."""
    config = config_pb2.ConfigProto(
        intra_op_parallelism_threads=flags.tensorflow_intra_op_parallelism,
        inter_op_parallelism_threads=flags.tensorflow_inter_op_parallelism,
    )
    config.gpu_options.per_process_gpu_memory_fraction = flags.per_process_gpu_memory_fraction
    return config


def _load(session, path):
    if not any(os.path.exists(os.path.join(path, f"saved_model.{end}")) for end in ("pb", "pbtxt")):
        raise not_found(
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}. "
            "Check that the directory exists and that you have the right permissions for accessing it."
        )
    try:
        return tf.compat.v1.saved_model.loader.load(session, [TAG], path)
    except tf.errors.OpError as error:
        raise from_tensorflow(error) from error
    except (OSError, DecodeError) as error:
        raise ServingError("DATA_LOSS", f"Can't parse {path}/saved_model.pb as binary proto") from error
    except RuntimeError as error:
        raise not_found(
            f"Could not find meta graph def matching supplied tags: {{ {TAG} }}. {error}"
        ) from error
    except Exception as error:  # an unknown operation, say: TensorFlow raises many kinds here
        raise ServingError("INTERNAL", f"Failed to load {path}: {error}") from error
