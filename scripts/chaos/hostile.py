"""The hostile clients: some send one attack after another, some hold many connections open and send next to nothing."""

from __future__ import annotations

import random
import threading

from attacks import Attack, AttackMaker
from target import Target
from wire import Closed, Connection, NoAnswer, Silence

# Of each server.
ATTACKERS = 3
# Connections of a crowd, how long they are held, and what is sent on each at most.
CROWD = 200
HELD_SECONDS = (0.5, 10.0)
CROWD_HEAD_BYTES = 30 * 1024
THINK_SECONDS = 0.1
# Above the numbers of all other clients, so that each mark has one owner.
FIRST_NUMBER = 1000


def start(target: Target, seed: str, stop: threading.Event) -> list[threading.Thread]:
    threads: list[threading.Thread] = [Attacker(FIRST_NUMBER + i, seed, target, stop) for i in range(ATTACKERS)]
    threads.append(Crowd("crowd", seed, target, stop))
    for thread in threads:
        thread.start()
    return threads


class Hostile(threading.Thread):
    def __init__(self, name: str, seed: str, target: Target, stop: threading.Event):
        super().__init__(name=f"{name} {target.name}", daemon=True)
        self.chance = random.Random(f"{seed}/{target.name}/{name}")
        self.target = target
        self.stop = stop

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.target.tally.attack(*self.once())
        except BaseException as error:
            # A run without its attackers would be well for the wrong reason.
            self.target.tally.complain(f"{self.name} failed: {error!r}")
            raise

    def once(self) -> tuple[str, str, str]:
        """What was done, what came of it, and what is wrong with that if anything is."""
        raise NotImplementedError


class Attacker(Hostile):
    def __init__(self, number: int, seed: str, target: Target, stop: threading.Event):
        super().__init__(f"attacker {number}", seed, target, stop)
        self.maker = AttackMaker(self.chance, number, target.has_handlers)

    def once(self) -> tuple[str, str, str]:
        attack = self.maker.next()
        outcome, complaint = self.one(attack)
        self.stop.wait(self.chance.uniform(0, THINK_SECONDS))
        return attack.kind, outcome, complaint

    def one(self, attack: Attack) -> tuple[str, str]:
        connection = None
        try:
            connection = Connection(self.target.port)
            connection.drip(attack.pieces)
            answer = connection.receive(has_body=attack.answer_has_body)
            return str(answer.status), attack.complaint(answer)
        except Closed:
            return "closed", ""
        except Silence as problem:
            return "silence", str(problem)
        except NoAnswer as problem:
            return "no answer", str(problem)
        finally:
            if connection:
                connection.close()


HEAD_BEGUN = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\n"
CROWDS = {
    "idle connections": b"",
    "one byte of a body": HEAD_BEGUN + b"Content-Length: 1000\r\n\r\n[",
    "open heads": HEAD_BEGUN + b"X: " + b"x" * (CROWD_HEAD_BYTES - len(HEAD_BEGUN) - 3),
}


class Crowd(Hostile):
    """Many connections at a time, which are held for a while and then given up."""

    def once(self) -> tuple[str, str, str]:
        kind = self.chance.choice(list(CROWDS))
        return f"{CROWD} {kind}", *self.hold(CROWDS[kind])

    def hold(self, sent: bytes) -> tuple[str, str]:
        connections: list[Connection] = []
        try:
            for _ in range(CROWD):
                connections.append(Connection(self.target.port))
                connections[-1].send(sent)
            self.stop.wait(self.chance.uniform(*HELD_SECONDS))
            return "held", ""
        except NoAnswer as problem:
            return "no connection", str(problem)
        finally:
            for connection in connections:
                connection.hang_up(rudely=self.chance.random() < 0.5)
