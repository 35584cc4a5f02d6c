import sys

assert hasattr(sys.modules["inference"], "beside"), "imported before the script asks for it"
NAME = "hides a package of Python"
