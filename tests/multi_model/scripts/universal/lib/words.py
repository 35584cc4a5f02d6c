NAME = "universal"
