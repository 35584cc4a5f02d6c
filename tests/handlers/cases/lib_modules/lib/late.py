NAME = "imported in a call"
