raise ImportError("requests is not installed here")
