NAME = "a package in lib"
