"""The parts of a run: each is a function that measures and yields rows."""

import contextlib
import http.client
import itertools
import os
import re
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.harness.client import Failure, request, run
from tests.harness.constants import HOST
from tests.harness.processes import memory

from .load import Load, large_csv, large_json, post, slow_json, small_json, take_turns
from .rows import CPU, MB, MB_RATE, P50, P99, PEAK, RATE, SWITCHES, Row, Run, compared, name, quantity, ratios, spread
from .targets import FAKE_MODEL_SERVER, HERE, STATUS_PATH, TARGET, Bench, Ours, say

SMALL = "small JSON"
PAIR = "trivial pair of handlers"
CONNECTIONS = (16, 64)
LARGE = "10 MB JSON"
AT_REST = "memory at rest (server alone; nginx: all its processes)"
# Figures of small requests, with their limits.
LIMITS = {
    SMALL: {RATE: {"at_least": (0.35, 0.75)}, P50: {}, P99: {"at_most": (3, 1.5)}, CPU: {}, PEAK: {}},
    PAIR: {RATE: {"at_least": (0.15, 0.3)}, P50: {}, P99: {}, CPU: {}},
}
# Handlers that are measured with one worker and with two: the script, the work, connections.
SCALED = (
    ("pair", PAIR, 64),
    ("single", "single handler that asks the model itself", 64),
    ("busy", "pair of handlers that takes 5 ms of CPU", 16),
)
# `--workers`: ways in which requests wait, by the work; handlers and settings.
SHAPES = {
    "coroutines": ("requests as coroutines", "", {}),
    "threads": ("requests on threads", "", {"SAGEMAKER_TFS_WORKERS": "threads"}),
    "pair": (PAIR, "pair", {}),
}
# `--workers`: requests that wait at once for a model that takes so long.
MANY, MANY_MS = 2000, 1000
START_SECONDS = 16
# `--attack`: connections that send a byte of a head each second, and connections that send nothing.
DRIPPING, IDLE = 1000, 5000
DRIP_SECONDS = 1.0
# From the beginning of a disturbance until it counts; making thousands of connections takes a second.
DISTURB_SECONDS = 3


def against_nginx(bench: Bench) -> Iterator[Row]:
    nginx, ours, pair = bench.start_nginx(FAKE_MODEL_SERVER), bench.start(), bench.start("pair")
    for server in (nginx, ours, pair):
        server.wait_ready()
    time.sleep(1)
    at_rest = [memory(pids)[0] / MB for pids in (nginx.pids(), ours.pids(), pair.workers())]
    small = [small_json(bench, connections) for connections in CONNECTIONS]
    large, csv = large_json(bench, 4, 10), large_csv(bench, 4, 10)
    sides = {"nginx": nginx, "ours": ours}
    runs = take_turns(bench, {**dict.fromkeys(small, {**sides, "pair": pair}), large: sides})
    (through,) = take_turns(bench, {csv: {"ours": ours}}, rounds=1)[csv]["ours"]

    for work, side in ((SMALL, "ours"), (PAIR, "pair")):
        for (figure, limits), load in itertools.product(LIMITS[work].items(), small):
            row = name(work, figure, load.connections)
            yield compared(row, figure, runs[load]["nginx"], runs[load][side], **limits)
    yield compared(name(LARGE, PEAK, 4), PEAK, runs[large]["nginx"], runs[large]["ours"])
    yield Row(name("10 MB CSV", PEAK, 4), PEAK.of(through), "MB")
    yield Row(AT_REST, at_rest[1], "MB", at_rest[0], at_most=(20, 8))
    yield Row(f"memory of a worker at rest, {PAIR}", at_rest[2], "MB")
    yield compared(name(LARGE, MB_RATE, 4), MB_RATE, runs[large]["nginx"], runs[large]["ours"], at_least=(0.5, 1))
    more = quantity(RATE.of(through), "requests/s")
    yield Row(name("10 MB CSV through the server", MB_RATE, 4), MB_RATE.of(through), "MB/s", more=more)


def handlers(bench: Bench) -> Iterator[Row]:
    for script, work, connections in SCALED:
        one, two = _rates(bench, script, small_json(bench, connections), workers=(1, 2))
        work = name(work, RATE, connections)
        yield Row(f"{work}, 1 worker", statistics.median(one), "requests/s")
        more = f"{spread(ratios(one, two))} of 1 worker"
        yield Row(f"{work}, 2 workers", statistics.median(two), "requests/s", more=more)
    # Each connection's request is with the model nearly all the time: one thread for all handlers must be enough.
    (rates,) = _rates(bench, "pair", slow_json(bench, 64, 100), workers=(1,))
    work = f"{name(PAIR, RATE, 64)}, a model that takes 100 ms"
    yield Row(work, statistics.median(rates), "requests/s", at_least=(512, 640))


def _rates(bench: Bench, script: str, load: Load, workers: tuple[int, ...]) -> list[list[float]]:
    """Requests per second in each round, with these numbers of workers in turn."""
    sides = {f"{script}, {count}": bench.start(script, SAGEMAKER_GUNICORN_WORKERS=str(count)) for count in workers}
    runs = take_turns(bench, {load: sides}, rounds=max(1, bench.rounds // 3))[load]
    bench.running.close()
    return [list(map(RATE.of, found)) for found in runs.values()]


def conversion(bench: Bench) -> Iterator[Row]:
    """The converters alone: the lines `name: number` of their own benchmark."""
    say("conversion alone")
    output = run(TARGET / "examples" / "convert_speed")
    speeds = {work: float(speed) for work, speed in re.findall(r"^(\w+)_mb_per_s: *([\d.]+)", output, re.MULTILINE)}
    csv = speeds.pop("csv")
    yield Row("10 MB CSV (100 numeric columns) to JSON, conversion alone", csv, "MB/s", at_least=(200, 1000))
    ratio = speeds["csv_by_signature"] / csv
    yield Row("CSV by the model's signature, compared with CSV without", ratio, "x", at_least=(0.9, 1))
    floors = {"json_to_csv": (250, 500), "json_to_jsonlines": (250, 500), "npy_float32": (150, 300)}
    for work, speed in speeds.items():
        yield Row(f"{work.replace('_', ' ')}, conversion alone", speed, "MB/s", at_least=floors.get(work, ()))


def large_bodies(bench: Bench) -> Iterator[Row]:
    """Bodies of 100 MB, one at a time: CSV, and JSON both ways, to a model server that sends it back."""
    say("bodies of 100 MB")
    server, _, (above,), _ = _large_body(bench, large_csv(bench, 1, 100), "", "fixed")
    more = f"peak {quantity(server.memory()[1] / MB, 'MB')}"
    work = "memory for a 100 MB CSV body, above rest and body"
    yield Row(work, above - 1, "x body", at_most=(2, "constant"), more=more)
    load = large_json(bench, 1, 100)
    _, _, _, without = _large_body(bench, load, "", "echo")
    _, answer, above, seconds = _large_body(bench, load, "pair", "echo")
    if answer != load.body.read_bytes():
        raise Failure(f"{len(answer)} bytes came back of {load.size}, or others")
    work = "100 MB body both ways through a pair of handlers"
    yield Row(f"peak memory of the server above rest, {work}", above[0], "x body")
    yield Row(f"peak memory of the worker above rest, {work}", above[1], "x body")
    yield Row(f"time, {work}", seconds, "s", more=f"without handlers {quantity(without, 's')}")


def _large_body(bench: Bench, load: Load, handler: str, kind: str) -> tuple[Ours, bytes, list[float], float]:
    """The server, its answer, the most memory above rest of it and of its workers, in bodies, and the seconds taken."""
    bench.running.close()
    server = bench.start(handler, FAKE_TFS_ANSWER=kind).wait_ready()
    time.sleep(1)
    processes = [pids for pids in (server.pids(), server.workers()) if pids]
    at_rest = [memory(pids)[0] for pids in processes]
    server.reset_peak()
    begin = time.monotonic()
    answer = post(server, load)
    seconds = time.monotonic() - begin
    above = [(memory(pids)[1] - rest) / load.size for pids, rest in zip(processes, at_rest, strict=True)]
    return server, answer, above, seconds


def starts(bench: Bench) -> Iterator[Row]:
    say("starts")
    times = []
    for _ in range(bench.rounds):
        server = bench.start(FAKE_TFS_START_DELAY_MS="1000")
        with ThreadPoolExecutor(2) as pool:
            available = pool.submit(first_answer, server.rest_ports[0], STATUS_PATH, '"AVAILABLE"')
            ready = pool.submit(first_answer, server.port, "/ping")
        bench.running.close()
        times.append((ready.result() - available.result()) * 1000)
        # Both are seen late by up to a poll's length: a little below zero is the same moment.
        if times[-1] < -20:
            raise Failure(f"/ping answered 200 {-times[-1]:.0f} ms before the model server was available")
    work = "from the model server answering AVAILABLE to /ping 200"
    more = f"at most {quantity(max(times), 'ms')}"
    yield Row(work, max(statistics.median(times), 0.0), "ms", at_most=(100, 20), more=more)

    def start_ms(handler: str) -> float:
        server = bench.start(handler)
        ready = first_answer(server.port, "/ping")
        bench.running.close()
        return (ready - server.begin) * 1000

    with_pair, without = ([start_ms(handler) for _ in range(bench.rounds)] for handler in ("pair", ""))
    more = f"at most {quantity(max(with_pair), 'ms')}; without handlers {quantity(statistics.median(without), 'ms')}"
    yield Row("from the start to /ping 200, trivial pair of handlers", statistics.median(with_pair), "ms", more=more)


def first_answer(port: int, path: str, wanted: str = "") -> float:
    """When the first 200 came that holds `wanted`."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = request(port, "GET", path)
            if answer.status == 200 and wanted in answer.text:
                return time.monotonic()
        time.sleep(0.001)
    raise Failure(f"port {port} did not answer 200 to {path} within {START_SECONDS} s")


def waiting(bench: Bench) -> Iterator[Row]:
    """Small JSON against nginx with 2 workers, all in front of nginx with one worker that returns fixed answers."""
    backend = HERE / "nginx_model_server"
    chosen = {shape: found for shape, found in SHAPES.items() if shape in bench.parts}
    sides = {shape: bench.start(handler, backend, **settings) for shape, (_, handler, settings) in chosen.items()}
    sides = {"nginx": bench.start_nginx(backend, workers="2"), **sides}
    loads = [small_json(bench, connections) for connections in CONNECTIONS]
    for load, runs in take_turns(bench, dict.fromkeys(loads, sides)).items():
        for shape, (work, _, _) in chosen.items():
            for figure in (RATE, P99, CPU, SWITCHES):
                yield compared(name(work, figure, load.connections), figure, runs["nginx"], runs[shape])


def many(bench: Bench) -> Iterator[Row]:
    server = bench.start(SAGEMAKER_MAX_CONCURRENT_TRANSFORMS=str(MANY)).wait_ready()
    at_rest, load = server.memory()[0] / MB, slow_json(bench, MANY, MANY_MS)
    runs = take_turns(bench, {load: {"ours": server}})[load]["ours"]
    work = f"a model that takes {MANY_MS} ms"
    for figure, more in (
        (RATE, f"at most {MANY * 1000 / MANY_MS:,.0f}"),
        (P99, ""),
        (PEAK, f"at rest {at_rest:.1f} MB"),
    ):
        yield Row(name(work, figure, MANY), figure.combine(map(figure.of, runs)), figure.unit, more=more)
    yield Row(f"{work}, threads of the server, {MANY} connections", len(server.threads()), "")


def ping(bench: Bench) -> Iterator[Row]:
    csv = large_csv(bench, 1, 100)

    def convert(server: Ours, over: threading.Event) -> None:
        while not over.is_set():
            post(server, csv)

    runs = _with_and_without(bench, Load(1), convert, os.cpu_count() or 1)
    for figure in (P50, P99):
        yield compared(f"/ping, alone and while bodies of 100 MB are converted, {figure.name}", figure, *runs)


def attack(bench: Bench) -> Iterator[Row]:
    closed: list[socket.socket] = []
    runs = _with_and_without(bench, small_json(bench, 16), partial(_drip, closed), 1)
    yield compared(name(SMALL, RATE, 16), RATE, *runs)
    yield compared(name(SMALL, P99, 16), P99, *runs, at_most=(3,))
    yield Row("dripping connections that the server closed", len(closed), "")


def _drip(closed: list[socket.socket], server: Ours, over: threading.Event) -> None:
    """Holds idle and dripping connections. A dripping one that the server closes is replaced, and noted in `closed`."""

    def connect(first: bytes = b"") -> socket.socket:
        connection = socket.create_connection((HOST, server.port), timeout=10)
        connection.sendall(first)
        connection.setblocking(False)
        return connection

    head = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
    idle, dripping = [connect() for _ in range(IDLE)], [connect(head) for _ in range(DRIPPING)]
    for index in itertools.cycle(range(DRIPPING)):
        if over.wait(DRIP_SECONDS / DRIPPING):
            break
        try:
            dripping[index].send(b"x")
            gone = not dripping[index].recv(4096)
        except OSError as error:
            gone = not isinstance(error, BlockingIOError)
        if gone:
            closed.append(dripping[index])
            dripping[index].close()
            dripping[index] = connect(head)
    for connection in [*idle, *dripping]:
        connection.close()


def _with_and_without(bench: Bench, load: Load, disturb: Callable, threads: int) -> Iterable[list[Run]]:
    """The runs of a server under a load, alone and while this many threads disturb it."""
    server = bench.start()

    @contextlib.contextmanager
    def during(side: str) -> Iterator[None]:
        over = threading.Event()
        count = threads if side == "disturbed" else 0
        with ThreadPoolExecutor(threads) as pool:
            running = [pool.submit(disturb, server, over) for _ in range(count)]
            try:
                time.sleep(DISTURB_SECONDS if count else 0)
                yield
            finally:
                over.set()
            for one in running:
                one.result()

    return take_turns(bench, {load: {"alone": server, "disturbed": server}}, during=during)[load].values()
