"""Commands that run to their end."""

from __future__ import annotations

import subprocess

from .client import Failure

# For what hangs.
COMMAND_SECONDS = 120


def run(
    *command, code: int | None = 0, timeout: float = COMMAND_SECONDS, env: dict | None = None, input: str = ""
) -> str:
    """The output of a command, both streams; fails on another exit code, unless `code` is None."""
    command = [str(word) for word in command]
    done = subprocess.run(
        command, input=input.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, env=env
    )
    output = done.stdout.decode(errors="replace")
    if code not in (None, done.returncode):
        raise Failure(f"{' '.join(command)}: exit code {done.returncode}\n{output}")
    return output
