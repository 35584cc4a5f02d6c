"""What became of the requests to one server: counted, judged, and held against the faults of that time.

All threads of a run write here, under one lock. What counts as lost, as wrong and as the price of a fault is decided
here and told in docs/RELIABILITY.md.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone

from asked import Request, marks_in
from wire import Answer

# A call that had begun when its worker was killed is not repeated: it may have had effects.
ENDED_WITH_WORKER = re.compile(r"The Python worker was restarted while it ran (input|output)_handler: ")
# So many failures are told in full; the others are counted.
TOLD_FAILURES = 20


@dataclass
class Kill:
    """The end of a worker by our hand."""

    at: float
    # Its one thread runs one call at a time, so no more than one can end with it.
    is_claimed: bool = False


@dataclass
class Gap:
    """The longest time between two events."""

    last: float | None = None
    longest: float = 0.0

    def event(self, now: float) -> None:
        if self.last is not None:
            self.longest = max(self.longest, now - self.last)
        self.last = now


@dataclass
class Tally:
    """Counts of one server. Everything is guarded by `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    requests: int = 0
    right: int = 0
    ended_with_worker: int = 0
    hung_up: int = 0
    wrong: int = 0
    mixed_up: int = 0
    lost: int = 0
    statuses: Counter = field(default_factory=Counter)
    kinds: Counter = field(default_factory=Counter)
    manners: Counter = field(default_factory=Counter)
    pings: Counter = field(default_factory=Counter)
    faults: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    service: Gap = field(default_factory=Gap)
    longest_without_ping: float = 0.0
    # Of each client, when it began with the request it is at.
    under_way: dict[int, float] = field(default_factory=dict)
    worker_kills: list[Kill] = field(default_factory=list)
    model_server_kills: list[float] = field(default_factory=list)
    # When processes were stopped, and for how long.
    stops: list[tuple[float, float]] = field(default_factory=list)
    # Of hostile clients: what they sent, what came of it, and what must not have come of it.
    attacks: Counter = field(default_factory=Counter)
    attack_outcomes: Counter = field(default_factory=Counter)
    let_through: int = 0
    last_good_ping: float | None = None
    is_ping_out: bool = False

    def begin(self, client: int) -> float:
        now = time.monotonic()
        with self.lock:
            self.under_way[client] = now
        return now

    def hang_up(self, client: int, request: Request, manner: str) -> None:
        """The client hung up on purpose: no answer is wanted."""
        with self.lock:
            self._count(client, request, manner)
            self.hung_up += 1

    def answer(self, client: int, request: Request, manner: str, answer: Answer, begun: float) -> None:
        now = time.monotonic()
        is_right, error = judge(request, answer)
        with self.lock:
            self._count(client, request, manner)
            self.statuses[answer.status] += 1
            if is_right:
                self.right += 1
                if answer.status == 200:
                    self.service.event(now)
                return
            what = f"{answer.status} {answer.body[:300]!r}"
            if answer.status == 500 and ENDED_WITH_WORKER.match(error):
                if self._claim_kill(begun, now):
                    self.ended_with_worker += 1
                    return
                self.lost += 1
                return self._fail("lost: no worker was killed for it", request, manner, begun, what)
            if answer.status != request.status:
                self.lost += 1
                return self._fail("lost: a status that must not be", request, manner, begun, what)
            self.wrong += 1
            others = marks_in(answer.body) - {request.mark}
            self.mixed_up += bool(others)
            what = f"{what}, headers {answer.headers}"
            self._fail(f"wrong, with marks {others}" if others else "wrong", request, manner, begun, what)

    def no_answer(self, client: int, request: Request, manner: str, why: str, begun: float) -> None:
        with self.lock:
            self._count(client, request, manner)
            self.lost += 1
            self._fail("lost: no answer", request, manner, begun, why)

    def ping(self, status: int | None, complaint: str) -> None:
        """`status` is None where no answer came. `complaint`: why it must not be so, if it must not."""
        now = time.monotonic()
        with self.lock:
            self.pings[status or "no answer"] += 1
            if status == 200:
                if self.is_ping_out and self.last_good_ping is not None:
                    self.longest_without_ping = max(self.longest_without_ping, now - self.last_good_ping)
                self.is_ping_out, self.last_good_ping = False, now
            else:
                self.is_ping_out = True
            if complaint:
                if status is None:
                    self.lost += 1
                else:
                    self.wrong += 1
                self._note(f"/ping: {complaint}")

    def attack(self, kind: str, outcome: str, complaint: str) -> None:
        """`complaint`: why this must not have come of it, if it must not."""
        with self.lock:
            self.attacks[kind] += 1
            self.attack_outcomes[outcome] += 1
            if complaint:
                self.let_through += 1
                self._note(f"hostile, {kind}: {complaint}")

    def complain(self, text: str) -> None:
        """Something else was wrong."""
        with self.lock:
            self.wrong += 1
            self._note(text)

    def fault(self, name: str) -> None:
        with self.lock:
            self.faults[name] += 1

    def oldest_under_way(self) -> float:
        with self.lock:
            return min(self.under_way.values(), default=time.monotonic())

    def model_server_kills_since(self, begun: float) -> int:
        with self.lock:
            return sum(at >= begun for at in self.model_server_kills)

    def worker_kills_since(self, begun: float) -> int:
        with self.lock:
            return sum(kill.at >= begun for kill in self.worker_kills)

    def stopped_since(self, begun: float) -> float:
        with self.lock:
            return sum(seconds for at, seconds in self.stops if at + seconds >= begun)

    def _count(self, client: int, request: Request, manner: str) -> None:
        self.under_way.pop(client, None)
        self.requests += 1
        self.kinds[request.kind] += 1
        self.manners[manner] += 1

    def _claim_kill(self, begun: float, now: float) -> bool:
        """Answers come in the order of their times, so the earliest kill that fits is the best choice."""
        for kill in self.worker_kills:
            if begun <= kill.at <= now and not kill.is_claimed:
                kill.is_claimed = True
                return True
        return False

    def _fail(self, how: str, request: Request, manner: str, begun: float, what: str) -> None:
        seconds = time.monotonic() - begun
        asked = f"{request.method} {request.path}, {request.kind} of {len(request.body)} bytes, {manner}"
        self._note(f"{how}: {request.mark} ({asked}), after {seconds:.2f} s: {what}")

    def _note(self, text: str) -> None:
        """Of hostile clients' failures some only: they must not hide those of others."""
        most = TOLD_FAILURES // 2 if text.startswith("hostile") else TOLD_FAILURES
        if len(self.failures) < most:
            self.failures.append(f"{clock()} {text}")


def clock() -> str:
    """The time of day as in the server's log."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def judge(request: Request, answer: Answer) -> tuple[bool, str]:
    """Whether it is the answer, and what error it tells of if it is not."""
    try:
        if answer.status == request.status and request.is_right(answer):
            return True, ""
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    try:
        return False, str(json.loads(answer.body)["error"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return False, ""
