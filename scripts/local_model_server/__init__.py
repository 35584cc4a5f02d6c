"""A local model server: takes TensorFlow Serving's flags and answers its REST API, and predict over gRPC.

For development, demos and tests on machines without TensorFlow Serving (TFS), never for an image: it listens on
loopback only and runs in Python. It imitates TFS 2.19, whose recorded answers the tests compare with its own.

Unlike TFS, it queues requests as batches but runs each by itself, loads each version once, at the start, without a
warm-up, and ends at once when it finds no version of a model or cannot load the newest. It knows neither version labels
nor the version policies `all` and `latest` (the default, of one version, aside). Python limits JSON to some 900 levels,
and numpy limits tensors to 64 dimensions.

Reading order: __main__ (the outline), configuration, servables, saved_model, inference; then rest_api with the json_*
modules, and grpc_api.
"""
