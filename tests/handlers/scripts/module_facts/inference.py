"""What the module, the interpreter and the process look like from inside."""
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass

AT_IMPORT = {
    "name": __name__,
    "file": __file__,
    "in sys.modules": __name__ in sys.modules,
    "main thread": threading.current_thread() is threading.main_thread(),
}


@dataclass
class Facts:
    """Dataclasses work in modules that are not in sys.modules, as long as annotations are no strings."""

    name: str
    value: object = None


def _pip():
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--version"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def input_handler(data, context):
    what = data.read().decode()
    code = os.path.dirname(__file__)
    facts = {
        "at import": lambda: AT_IMPORT,
        "in a call": lambda: [__name__, __name__ in sys.modules, threading.current_thread() is threading.main_thread()],
        "path": lambda: code in sys.path,
        "executable": lambda: [os.path.dirname(sys.executable), os.path.basename(sys.executable)[:7]],
        "prefix": lambda: [sys.prefix, sys.prefix != sys.base_prefix],
        "pip": lambda: _pip().split()[0],
        "pip's place": lambda: _pip().split(" from ")[1].startswith(sys.prefix),
        "version": lambda: list(sys.version_info[:2]),
        "same version": lambda: subprocess.run(
            [sys.executable, "-c", "import sys; print(list(sys.version_info[:2]))"],
            check=True, stdout=subprocess.PIPE, text=True).stdout.strip(),
        "argv": lambda: isinstance(sys.argv, list) and len(sys.argv) > 0,
        "stdin": lambda: sys.stdin is None or sys.stdin.read() == "",
        "child's exit": lambda: subprocess.run(["sh", "-c", "exit 7"]).returncode,
        "flags": lambda: [sys.flags.isolated, sys.flags.no_site, sys.flags.optimize],
        "encodings": lambda: [sys.getfilesystemencoding(), sys.stdout.encoding.lower(), sys.getdefaultencoding()],
    }
    return json.dumps(Facts(what, facts[what]()).value)


def output_handler(response, context):
    return response.content, "application/json"
