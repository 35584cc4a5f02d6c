NAME = "in lib"
