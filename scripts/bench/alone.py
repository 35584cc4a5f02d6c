"""The parts of a run that look at one server: conversion, memory for large bodies, times to start."""

from __future__ import annotations

import contextlib
import http.client
import re
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.harness.client import Failure, request
from tests.harness.processes import memory

from .load import Body, large_csv, large_json, post
from .rows import MB, Row, quantity
from .targets import STATUS_PATH, TARGET, Bench, Ours, say

START_SECONDS = 16


def conversion(bench: Bench) -> Iterator[Row]:
    """The converters alone: the lines `name: number` of their own benchmark."""
    say("conversion alone")
    run = subprocess.run(
        [TARGET / "examples" / "convert_speed"], capture_output=True, text=True, timeout=120, check=True
    )
    speeds = dict(re.findall(r"^(\w+)_mb_per_s: *([\d.]+)", run.stdout, re.MULTILINE))
    csv_speed = float(speeds.pop("csv"))
    work = "10 MB CSV (100 numeric columns) to JSON, conversion alone"
    yield Row(work, csv_speed, "MB/s", at_least=(200, 1000))
    for name, speed in speeds.items():
        yield Row(f"{name.replace('_', ' ')}, conversion alone", float(speed), "MB/s")


def large_bodies(bench: Bench) -> Iterator[Row]:
    """Bodies of 100 MB, one at a time: CSV, and JSON both ways, to a model server that sends it back."""
    say("bodies of 100 MB")
    body = large_csv(bench, 100)
    server = bench.start().wait_ready()
    (above,), peak, _, _ = _large_body(server, body)
    more = f"peak {quantity(peak / MB, 'MB')}"
    yield Row(
        "memory for a 100 MB CSV body, above rest and body", above - 1, "x body", at_most=(2, "constant"), more=more
    )
    bench.running.close()

    body = large_json(bench, 100)
    seconds = []
    for handler in ("", "pair"):
        server = bench.start(handler, FAKE_TFS_ANSWER="echo").wait_ready()
        above, _, answer, took = _large_body(server, body)
        seconds.append(took)
        if answer != body.path.read_bytes():
            raise Failure(f"{len(answer)} bytes came back of {body.size}, or others")
        bench.running.close()
    work = "100 MB body both ways through a pair of handlers"
    yield Row(f"peak memory of the server above rest, {work}", above[0], "x body")
    yield Row(f"peak memory of the worker above rest, {work}", above[1], "x body")
    yield Row(f"time, {work}", seconds[1], "s", more=f"without handlers {quantity(seconds[0], 's')}")


def _large_body(server: Ours, body: Body) -> tuple[list[float], int, bytes, float]:
    """The most memory of server and worker above rest, in bodies; the server's peak in bytes; the answer; seconds."""
    time.sleep(1)
    pids = [found for found in (server.pids(), server.workers()) if found]
    at_rest = [memory(found)[0] for found in pids]
    server.reset_peak()
    begin = time.monotonic()
    answer = post(server, body)
    seconds = time.monotonic() - begin
    above = [(memory(found)[1] - rest) / body.size for found, rest in zip(pids, at_rest)]
    return above, server.memory()[1], answer, seconds


def starts(bench: Bench) -> Iterator[Row]:
    say("starts")
    times = []
    for _ in range(bench.rounds):
        server = bench.start(FAKE_TFS_START_DELAY_MS="1000")
        with ThreadPoolExecutor(2) as pool:
            available = pool.submit(_first_answer, server.rest_ports[0], STATUS_PATH, '"AVAILABLE"')
            ready = pool.submit(_first_answer, server.port, "/ping")
        bench.running.close()
        times.append((ready.result() - available.result()) * 1000)
        # Both are seen late by up to a poll's length: a little below zero is the same moment.
        if times[-1] < -20:
            raise Failure(f"/ping answered 200 {-times[-1]:.0f} ms before the model server was available")
    work = "from the model server answering AVAILABLE to /ping 200"
    yield Row(work, max(statistics.median(times), 0.0), "ms", at_most=(100, 20), more=_at_most(times))

    def start_ms(handler: str) -> float:
        server = bench.start(handler)
        ready = _first_answer(server.port, "/ping")
        bench.running.close()
        return (ready - server.begin) * 1000

    with_pair, without = ([start_ms(handler) for _ in range(bench.rounds)] for handler in ("pair", ""))
    more = f"{_at_most(with_pair)}; without handlers {quantity(statistics.median(without), 'ms')}"
    yield Row("from the start to /ping 200, trivial pair of handlers", statistics.median(with_pair), "ms", more=more)


def _first_answer(port: int, path: str, wanted: str = "") -> float:
    """When the first 200 came that holds `wanted`."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = request(port, "GET", path)
            if answer.status == 200 and wanted in answer.text:
                return time.monotonic()
        time.sleep(0.001)
    raise Failure(f"port {port} did not answer 200 to {path} within {START_SECONDS} s")


def _at_most(times: list[float]) -> str:
    return f"at most {quantity(max(times), 'ms')}"
