"""The table at the end, and whether it is as it should be."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

from faults import Injector
from hostile import CROWD, CROWD_HEAD_BYTES
from target import BODY_MEMORY, INSTANCES, Footprint, Target

MB = 1_000_000
# Connections to TFS that were kept, a worker that is just being replaced; a leak at every fault would be hundreds.
MOST_MORE_DESCRIPTORS = 16
MOST_MORE_THREADS = 16
# What may be kept after a rest, by its causes: on two CPUs 1 + 32 + 6 MB. A leak of 2 KB a request is more after five minutes.
#
# - Connections to TFS with a buffer each way: more than there are requests at once in a run.
# - In each arena of glibc, of which there is one for each CPU (src/allocator.rs), 8 MiB at the top and as much in pieces
#   below something that is in use.
# - The heads of a crowd, likewise.
KEPT_CONNECTIONS = 64
CONNECTION_BUFFERS = 2 * 8 * 1024
ARENAS = min(max(os.cpu_count() or 1, 2), 8)
KEPT_IN_AN_ARENA = 16 << 20
MOST_MORE_MEMORY = KEPT_CONNECTIONS * CONNECTION_BUFFERS + ARENAS * KEPT_IN_AN_ARENA + CROWD * CROWD_HEAD_BYTES
# Under load: the limit of all bodies, and what accepted requests grow to beyond it.
MOST_MORE_MEMORY_UNDER_LOAD = BODY_MEMORY * 5 // 4 + MOST_MORE_MEMORY


@dataclass
class Result:
    """What is known of one server at the end."""

    target: Target
    injector: Injector
    before: Footprint
    after: Footprint | None = None
    is_complete: bool = False
    starts: tuple[int, int] = (0, 0)
    twice_run: list[str] = field(default_factory=list)
    exit_code: int | None = None
    left: list[str] = field(default_factory=list)

    @property
    def restarts(self) -> tuple[int, int]:
        instances, workers = self.starts
        return instances - INSTANCES, workers - self.target.workers_wanted

    def problems(self) -> list[str]:
        tally, found = self.target.tally, []

        def check(is_well: bool, text: str) -> None:
            if not is_well:
                found.append(f"{self.target.name}: {text}")

        check(tally.lost == 0, f"{tally.lost} requests lost")
        check(tally.wrong == 0, f"{tally.wrong} answers wrong")
        check(not self.twice_run, f"output_handler ran twice for {self.twice_run[:10]}")
        check(tally.let_through == 0, f"{tally.let_through} attacks of hostile clients came to what must not be")
        check(self.is_complete, "not everything came back after the faults")
        killed = (len(self.injector.killed_instances), len(self.injector.killed_workers))
        check(self.restarts == killed, f"restarts {self.restarts}, but processes killed {killed} (TFS, workers)")
        check(self.exit_code == 0, f"exit code {self.exit_code} after SIGTERM")
        check(not self.left, f"processes left after SIGTERM: {', '.join(self.left)}")
        check(self.after is not None, "the end was not measured")
        if self.after:
            check(is_flat(self.before, self.after), f"not flat: {self.before} at the start, {self.after} at the end")
            most = self.before.memory + MOST_MORE_MEMORY_UNDER_LOAD
            check(self.after.peak <= most, f"took {self.after.peak // MB} MB under load; the bound is {most // MB} MB")
        return found


def is_flat(before: Footprint, after: Footprint) -> bool:
    return (
        after.descriptors <= before.descriptors + MOST_MORE_DESCRIPTORS
        and after.threads <= before.threads + MOST_MORE_THREADS
        and after.memory <= before.memory + MOST_MORE_MEMORY
    )


def table(results: list[Result], seconds: float, command: str, seed: int) -> str:
    rows = [("", [result.target.name for result in results]), ("---", ["---"] * len(results))]

    def row(name: str, figure) -> None:
        rows.append((name, [str(figure(result)) for result in results]))

    def counts(name: str, of) -> None:
        """A row for each thing that was counted."""
        for key in sorted({key for result in results for key in of(result)}, key=str):
            row(name.format(key), lambda result, key=key: f"{of(result)[key]:,}")

    tally = lambda name: lambda result: f"{getattr(result.target.tally, name):,}"
    row("requests", tally("requests"))
    row("answers as they must be", tally("right"))
    row("client hung up on purpose", tally("hung_up"))
    row("ended with its worker (500)", tally("ended_with_worker"))
    row("**wrong answers**", tally("wrong"))
    row("of them another request's", tally("mixed_up"))
    row("**lost requests**", tally("lost"))
    row("attacks of hostile clients", lambda result: f"{sum(result.target.tally.attacks.values()):,}")
    row("**of them let through**", tally("let_through"))
    row("`output_handler` run twice", lambda result: len(result.twice_run))
    row("longest time without a successful answer", lambda result: f"{result.target.tally.service.longest:.2f} s")
    row("longest time that /ping was not 200", lambda result: f"{result.target.tally.longest_without_ping:.2f} s")
    row("TFS restarts (processes killed)", lambda r: f"{r.restarts[0]} ({len(r.injector.killed_instances)})")
    row("worker restarts (processes killed)", lambda r: f"{r.restarts[1]} ({len(r.injector.killed_workers)})")
    row("memory of the server, start → end (most)", _memory)
    row("descriptors, start → end", lambda r: _change(r, "descriptors"))
    row("threads, start → end", lambda r: _change(r, "threads"))
    row("processes left after SIGTERM", lambda result: len(result.left))
    counts("fault: {}", lambda result: result.target.tally.faults)
    counts("answers with status {}", lambda result: result.target.tally.statuses)
    counts("/ping: {}", lambda result: result.target.tally.pings)
    counts("asked: {}", lambda result: result.target.tally.kinds)
    counts("sent: {}", lambda result: result.target.tally.manners)
    counts("hostile: {}", lambda result: result.target.tally.attacks)
    counts("came of it: {}", lambda result: result.target.tally.attack_outcomes)
    lines = [f"| {name} | {' | '.join(figures)} |" for name, figures in rows]
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cpu = f" ({model[1]})" if model else ""
    lines += [
        "",
        f"{seconds / 60:.1f} minutes of faults, seed {seed}, `{command}`. Machine: {os.cpu_count()} cores{cpu}, Linux "
        f"{platform.release()}, Python {platform.python_version()}.",
    ]
    return "\n".join(lines)


def _memory(result: Result) -> str:
    after, most = (f"{n / MB:.0f}" for n in (result.after.memory, result.after.peak)) if result.after else "??"
    return f"{result.before.memory / MB:.0f} → {after} MB ({most} MB)"


def _change(result: Result, name: str) -> str:
    after = getattr(result.after, name) if result.after else "?"
    return f"{getattr(result.before, name)} → {after}"
