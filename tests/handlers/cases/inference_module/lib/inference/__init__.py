raise ImportError("the package in lib")
