raise ImportError("gevent is not installed here")
