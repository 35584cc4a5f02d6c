"""Free ports for servers."""

import random
import socket

from .constants import HOST

# Rust tests, which may run at the same time, stay below; above are the kernel's, for outgoing connections.
PORTS = range(26_000, 32_768)
_locks: list[socket.socket] = []  # held until the process ends, however it ends


def free_ports(count: int = 1) -> int:
    """The first of `count` free ports in a row, at random. No port comes twice, in this process or in another."""
    for _ in range(1000):
        first = random.randrange(PORTS.start, PORTS.stop - count)
        locks = [_lock(port) for port in range(first, first + count)]
        if all(locks):
            _locks.extend(locks)
            return first
    raise OSError(f"there are no {count} free ports in a row from {PORTS.start} to {PORTS.stop - 1}")


def _lock(port: int) -> socket.socket | None:
    """The UDP socket with this number keeps other test processes away; `None` if one is there, or a server."""
    lock = socket.socket(type=socket.SOCK_DGRAM)
    try:
        lock.bind((HOST, port))
        socket.create_server((HOST, port)).close()
    except OSError:
        return lock.close()
    return lock
