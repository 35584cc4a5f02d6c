"""What hostile connections cost everybody else; run it through `scripts/bench.sh --attack`, which builds first.

16 clients work while 1,000 connections send a head a byte at a time and 5,000 more send nothing, and without them, in
turn. The ratios are taken within a round. Everything is on this machine: the attacker takes some CPU, too.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench import add_executables, end_cleanly_on_signals, say  # first: it says where shared/ is
import load
from processes import Server
from shared.processes import Processes, RunError

DRIPPING = 1000
IDLE = 5000
CLIENTS = 16
HEAD = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
# Each dripping connection sends a byte this often.
DRIP_SECONDS = 1.0


class Attack:
    """The connections. Use as a context: they are there while it lasts; those that are closed are made anew."""

    def __init__(self, port: int):
        self.address = ("127.0.0.1", port)
        self.over = threading.Event()
        self.closed = 0

    def __enter__(self) -> Attack:
        self.idle = [self.connect() for _ in range(IDLE)]
        self.dripping = [(self.connect(), itertools.count()) for _ in range(DRIPPING)]
        self.thread = threading.Thread(target=self.drip, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.thread.join()
        for connection in [*self.idle, *(connection for connection, _ in self.dripping)]:
            connection.close()

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self.address, timeout=10)
        connection.setblocking(False)
        return connection

    def drip(self) -> None:
        pause = DRIP_SECONDS / DRIPPING
        while not self.over.is_set():
            for index, (connection, sent) in enumerate(self.dripping):
                try:
                    position = next(sent)
                    connection.send(HEAD[position : position + 1] or b"x")
                    if not connection.recv(4096):
                        raise ConnectionError("closed")
                except BlockingIOError:
                    pass
                except OSError:
                    self.closed += 1
                    connection.close()
                    self.dripping[index] = (self.connect(), itertools.count())
                if self.over.wait(pause):
                    return


def main() -> int:
    options = _options()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    end_cleanly_on_signals(120 + 4 * options.rounds * options.seconds)
    with tempfile.TemporaryDirectory(prefix="sagemaker-tfs-attack-") as name, Processes(Path(name)) as processes:
        body = load.small_json(Path(name))
        server = Server(processes, options.server, options.model_server).wait()
        load.wrk(server.port, body, CLIENTS, 1)
        calm, attacked, closed = [], [], 0
        for number in range(1, options.rounds + 1):
            say(f"round {number} of {options.rounds}")
            calm.append(load.wrk(server.port, body, CLIENTS, options.seconds))
            with Attack(server.port) as attack:
                time.sleep(DRIP_SECONDS)
                attacked.append(load.wrk(server.port, body, CLIENTS, options.seconds))
            closed += attack.closed
        descriptors = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    ratios = [there.p99_ms / without.p99_ms for without, there in zip(calm, attacked)]
    rates = [there.per_second / without.per_second for without, there in zip(calm, attacked)]
    ratio = statistics.median(ratios)
    for what, figures in (("without", calm), (f"{DRIPPING} dripping, {IDLE} idle", attacked)):
        p99 = statistics.median(figure.p99_ms for figure in figures)
        rate = statistics.median(figure.per_second for figure in figures)
        print(f"{what}: {rate:,.0f} requests/s, p99 {p99:.2f} ms, none failed")
    print(f"p99 {ratio:.2f}x ({min(ratios):.2f} to {max(ratios):.2f}), at most 3x")
    print(f"requests/s {statistics.median(rates):.2f}x; dripping connections closed meanwhile: {closed}")
    print(f"descriptors of the server after the last attack: {descriptors}")
    return 0 if ratio <= 3 else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.sh --attack", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10, help="of each run; heads are given up after 20 s")
    add_executables(parser, "server", "model-server")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RunError as problem:
        say(f"FAILED: {problem}")
        sys.exit(1)
