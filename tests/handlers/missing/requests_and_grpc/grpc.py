raise ImportError("grpc is not installed here")
