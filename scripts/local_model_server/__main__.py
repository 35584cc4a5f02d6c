"""Entry point of the launcher `tensorflow_model_server`: makes the package importable and runs it."""

import os
import sys


def _main():
    # Python puts a script's own folder first on its path: here that is the inside of the package. Its
    # parent takes that place, so that the modules go by their full names and shadow nothing.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from local_model_server.server import main

    return main(sys.argv[1:])


sys.exit(_main())
