"""Free ports for servers."""

import random
import socket

from .constants import HOST

# The kernel takes ports for outgoing connections from 32768 upwards; servers stay below.
PORTS = range(20_000, 32_768)
ATTEMPTS = 1000

_taken: set[int] = set()


def free_ports(count: int = 1) -> int:
    """The first of `count` free ports in a row, at random, as other runs look for ports too. No port comes twice."""
    for _ in range(ATTEMPTS):
        first = random.randrange(PORTS.start, PORTS.stop - count)
        ports = range(first, first + count)
        if _taken.isdisjoint(ports) and all(map(_is_free, ports)):
            _taken.update(ports)
            return first
    raise OSError(f"there are no {count} free ports in a row from {PORTS.start} to {PORTS.stop - 1}")


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True
