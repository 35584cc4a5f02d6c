"""A module beside the script, which imports it, and runs as a program."""

import os


def script():
    import inference

    return inference.__file__


if __name__ == "__main__":
    print(os.path.basename(script()))
