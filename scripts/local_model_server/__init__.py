"""A local model server: takes the flags that sagemaker-tfs gives TensorFlow Serving (TFS), answers like TFS's REST API,
and predicts over gRPC.

For development, demos and tests on machines without TFS, never for an image: it listens on loopback only and runs in
Python. It imitates TFS 2.19, whose recorded answers the tests compare with its own.

Unlike TFS it queues requests as batches but runs each by itself; it loads models once, at the start, and
ends at once if that fails; of version policies it knows `specific` and the default. JSON may nest
some 900 levels, which is Python's limit, and tensors have at most 64 dimensions, which is numpy's.
"""
