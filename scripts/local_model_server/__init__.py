"""A local model server: takes TensorFlow Serving's flags and answers its REST and gRPC APIs.

For development, demos and tests only, on machines without TensorFlow Serving (TFS). It never goes
into an image: it listens on loopback only, runs in Python, and serves what a test needs.

Reading order: server (the outline), flags, config_files, storage, servables, saved_model, inference;
then rest_api with http_server and the json_* modules, and grpc_api with tensor_proto.

It imitates TFS 2.19: tests compare its JSON with recorded answers of that version. What it does not do, and TFS does:
merge requests into batches (they only queue as batches), notice new model versions or a changed config file while
running, warm models up, MultiInference, and inputs of more than 64 dimensions.
"""
