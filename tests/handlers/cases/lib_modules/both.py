WHERE = "code"
