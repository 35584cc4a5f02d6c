raise RuntimeError("SAGEMAKER_PROGRAM names another file")
