"""The faults: which come when is drawn from the seed, where they hit depends on what runs then.

A fault waits while it would be one too many for a request under way. The server sends a request to TFS five times at
most and begins with it on a Python worker four times at most, and there are time limits; what lies beyond is no
request lost, and would only blur what is.
"""

from __future__ import annotations

import heapq
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tally import Kill
from target import Process, Target

SIGCONT, SIGKILL, SIGSTOP, SIGTERM = signal.SIGCONT, signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM

PAUSE_SECONDS = (0.05, 1.2)
# Over 2 s an instance counts as unresponsive. Time limits of calls and requests are 30 s and 60 s.
STOP_SECONDS = (0.1, 4.0)
STOP_SERVER_SECONDS = (0.05, 1.0)
# In the life of one request. It may itself hang up on TFS once, which makes four of the five attempts.
MOST_MODEL_SERVER_KILLS = 3
MOST_WORKER_KILLS = 3
MOST_STOPPED_SECONDS = 15.0
# For a process that is being restarted to be there.
PROCESS_SECONDS = 15.0
STEP_SECONDS = 0.02


@dataclass(frozen=True)
class Fault:
    name: str
    pause: float
    seconds: float
    server_seconds: float
    # Which of those there are, as a part of them.
    pick: float


class Injector(threading.Thread):
    """Breaks one server's processes until it is told to stop."""

    def __init__(self, target: Target, seed: str, stop: threading.Event):
        super().__init__(name="faults", daemon=True)
        self.target = target
        self.tally = target.tally
        self.stop = stop
        self.chance = random.Random(f"{seed}/faults/{target.name}")
        # What is still to be done to stopped processes, by time.
        self.due: list[tuple[float, int, Callable[[], None]]] = []
        self.number = 0
        # Stopped again before it went on, a process goes on at the later time.
        self.stopped_until: dict[Process, float] = {}
        self.killed_instances: set[Process] = set()
        self.killed_workers: set[Process] = set()
        self.failed: BaseException | None = None
        self.faults: dict[str, tuple[int, Callable[[Fault], bool]]] = {
            "TFS killed": (16, lambda fault: self.kill_instances(fault, SIGKILL, 1)),
            "TFS ended by SIGTERM": (8, lambda fault: self.kill_instances(fault, SIGTERM, 1)),
            "both TFS killed at once": (5, lambda fault: self.kill_instances(fault, SIGKILL, 2)),
            "TFS killed again while it starts": (4, self.kill_starting_instance),
            "TFS stopped for a while": (12, lambda fault: self.stop_instances(fault, 1)),
            "both TFS stopped for a while": (3, lambda fault: self.stop_instances(fault, 2)),
            "TFS stopped, then killed": (5, self.stop_and_kill_instance),
            "server stopped for a while": (4, self.stop_server),
        }
        if target.has_handlers:
            self.faults |= {
                "worker killed": (14, lambda fault: self.kill_worker(fault, SIGKILL)),
                "worker ended by SIGTERM": (6, lambda fault: self.kill_worker(fault, SIGTERM)),
                "all workers killed at once": (3, self.kill_all_workers),
                "worker stopped for a while": (8, self.stop_worker),
                "worker stopped, then killed": (4, self.stop_and_kill_worker),
                "worker's child killed": (8, self.kill_helper),
                "worker's child stopped for a while": (4, self.stop_helper),
            }

    def run(self) -> None:
        try:
            for fault in self.planned():
                if not self.wait(lambda until=time.monotonic() + fault.pause: time.monotonic() >= until):
                    break
                inject = self.faults[fault.name][1]
                if inject(fault):
                    self.tally.fault(fault.name)
        except BaseException as error:
            self.failed = error
            raise
        finally:
            for _, _, action in sorted(self.due):
                action()

    def planned(self) -> Iterator[Fault]:
        names = list(self.faults)
        weights = [weight for weight, _ in self.faults.values()]
        while not self.stop.is_set():
            (name,) = self.chance.choices(names, weights)
            pause, seconds = self.chance.uniform(*PAUSE_SECONDS), self.chance.uniform(*STOP_SECONDS)
            yield Fault(name, pause, seconds, self.chance.uniform(*STOP_SERVER_SECONDS), self.chance.random())

    # TFS.

    def kill_instances(self, fault: Fault, how: signal.Signals, count: int) -> bool:
        return self.may_kill_instances(count) and any(
            [self.kill_instance(p, how) for p in self.choose(self.target.instances, fault, count)]
        )

    def kill_starting_instance(self, fault: Fault) -> bool:
        if not self.may_kill_instances(2):
            return False
        before = self.target.instances()
        for process in self.choose(self.target.instances, fault, 1):
            self.kill_instance(process, SIGKILL)
        started = self.choose(lambda: [p for p in self.target.instances() if p not in before], fault, 1)
        return any([self.kill_instance(p, SIGKILL) for p in started])

    def stop_instances(self, fault: Fault, count: int) -> bool:
        return self.may_stop(fault.seconds) and any(
            [self.stop_process(p, fault.seconds) for p in self.choose(self.target.instances, fault, count)]
        )

    def stop_and_kill_instance(self, fault: Fault) -> bool:
        if not (self.may_kill_instances(1) and self.may_stop(fault.seconds)):
            return False
        for process in self.choose(self.target.instances, fault, 1):
            # Counted when it happens; nothing else is done meanwhile that could make it one too many.
            self.stop_process(process, fault.seconds, then=lambda p=process: self.kill_instance(p, SIGKILL))
            self.wait(lambda until=time.monotonic() + fault.seconds: time.monotonic() > until)
        return True

    def may_kill_instances(self, count: int) -> bool:
        tally = self.tally
        most = MOST_MODEL_SERVER_KILLS - count
        return self.wait(lambda: tally.model_server_kills_since(tally.oldest_under_way()) <= most)

    def kill_instance(self, process: Process, how: signal.Signals) -> bool:
        self.target.touch(process)
        with self.tally.lock:
            self.tally.model_server_kills.append(time.monotonic())
        return self.kill(process, how, self.killed_instances)

    # Workers.

    def kill_worker(self, fault: Fault, how: signal.Signals) -> bool:
        if not self.may_kill_workers(1):
            return False
        for process in self.choose(self.killable_workers, fault, 1):
            return self.kill_one_worker(process, how)
        return False

    def kill_all_workers(self, fault: Fault) -> bool:
        wanted = self.target.workers_wanted
        if not (self.may_kill_workers(wanted) and self.wait(lambda: len(self.proven_workers()) == wanted)):
            return False
        return any([self.kill_one_worker(process, SIGKILL) for process in self.proven_workers()])

    def stop_worker(self, fault: Fault) -> bool:
        return self.may_stop(fault.seconds) and any(
            [self.stop_process(p, fault.seconds) for p in self.choose(self.proven_workers, fault, 1)]
        )

    def stop_and_kill_worker(self, fault: Fault) -> bool:
        if not (self.may_kill_workers(1) and self.may_stop(fault.seconds)):
            return False
        for process in self.choose(self.proven_workers, fault, 1):
            self.stop_process(process, fault.seconds, then=lambda p=process: self.kill_one_worker(p, SIGKILL))
            self.wait(lambda until=time.monotonic() + fault.seconds: time.monotonic() > until)
        return True

    def kill_helper(self, fault: Fault) -> bool:
        return any([self.target.signal(p, SIGKILL) for p in self.choose(self.target.helpers, fault, 1)])

    def stop_helper(self, fault: Fault) -> bool:
        """Its worker waits for it, and all calls for the worker."""
        return self.may_stop(fault.seconds) and any(
            [self.stop_process(p, fault.seconds) for p in self.choose(self.target.helpers, fault, 1)]
        )

    def proven_workers(self) -> list[Process]:
        return [p for p in self.target.workers() if self.target.has_worked(p) and not self.is_killed(p)]

    def killable_workers(self) -> list[Process]:
        """When all workers end twice in a row without an answer, requests get 503: so one that has not answered yet
        ends only while another has."""
        return self.target.workers() if self.proven_workers() else []

    def may_kill_workers(self, count: int) -> bool:
        tally = self.tally
        return self.wait(lambda: tally.worker_kills_since(tally.oldest_under_way()) <= MOST_WORKER_KILLS - count)

    def kill_one_worker(self, process: Process, how: signal.Signals) -> bool:
        self.target.touch(process)
        # Noted before it happens: the answer that tells of it may be quick.
        kill = Kill(time.monotonic())
        with self.tally.lock:
            self.tally.worker_kills.append(kill)
        was_there = self.kill(process, how, self.killed_workers)
        if not was_there:
            with self.tally.lock:
                self.tally.worker_kills.remove(kill)
        return was_there

    # Any process.

    def stop_server(self, fault: Fault) -> bool:
        return self.may_stop(fault.server_seconds) and self.stop_process(self.target.itself, fault.server_seconds)

    def may_stop(self, seconds: float) -> bool:
        tally = self.tally
        return self.wait(
            lambda: tally.stopped_since(tally.oldest_under_way()) + seconds <= MOST_STOPPED_SECONDS
        )

    def kill(self, process: Process, how: signal.Signals, killed: set[Process]) -> bool:
        was_there = self.target.signal(process, how)
        if was_there:
            if how == SIGTERM:
                # A stopped process hears it when it goes on.
                self.target.signal(process, SIGCONT)
            killed.add(process)
        return was_there

    def is_killed(self, process: Process) -> bool:
        return process in self.killed_instances or process in self.killed_workers

    def stop_process(self, process: Process, seconds: float, then: Callable[[], object] | None = None) -> bool:
        until = time.monotonic() + seconds
        self.target.touch(process, until)
        with self.tally.lock:
            self.tally.stops.append((time.monotonic(), seconds))
        was_there = self.target.signal(process, SIGSTOP)
        self.stopped_until[process] = max(until, self.stopped_until.get(process, 0.0))
        self.number += 1
        heapq.heappush(self.due, (until, self.number, then or (lambda: self.let_go_on(process))))
        return was_there

    def let_go_on(self, process: Process) -> None:
        if time.monotonic() >= self.stopped_until[process] or self.stop.is_set():
            self.target.signal(process, SIGCONT)

    def choose(self, candidates: Callable[[], list[Process]], fault: Fault, count: int) -> list[Process]:
        """So many of them, once there are so many; none when the run ends or they do not come."""
        found: list[Process] = []

        def enough() -> bool:
            found[:] = [p for p in candidates() if not self.is_killed(p)]
            return len(found) >= count

        limit = time.monotonic() + PROCESS_SECONDS
        if not self.wait(lambda: enough() or time.monotonic() > limit) or len(found) < count:
            return []
        first = int(fault.pick * len(found))
        return [found[(first + i) % len(found)] for i in range(count)]

    def wait(self, is_so: Callable[[], bool]) -> bool:
        """Until it is so, doing meanwhile what is due; false when the run ends."""
        while not self.stop.is_set():
            while self.due and self.due[0][0] <= time.monotonic():
                heapq.heappop(self.due)[2]()
            if is_so():
                return True
            self.stop.wait(STEP_SECONDS)
        return False
