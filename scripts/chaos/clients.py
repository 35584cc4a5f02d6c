"""The clients: each sends one request after another, in one manner or another, until it is told to stop."""

from __future__ import annotations

import random
import threading
import time

from asked import Maker, Request
from tally import Tally
from target import Target
from wire import ANSWER_SECONDS, Connection, NoAnswer

# In all pauses of one body or answer together; far below any time limit of the server.
SLOW_SECONDS = 2.5
PING_SECONDS = 0.1
# Between two requests of a client: the servers share the machine with us.
THINK_SECONDS = 0.03
# A connection serves some requests, then the client takes a new one.
REQUESTS_A_CONNECTION = (1, 60)

PLAIN, CHUNKS, SLOW_SENDER, SLOW_READER = "plainly", "in chunks", "slow sender", "slow reader"
EXPECT, LEFT_BODY, LEFT_ANSWER = "100-continue", "hung up in the body", "hung up before the answer"
MANNERS = {PLAIN: 76, CHUNKS: 8, SLOW_SENDER: 4, SLOW_READER: 1.5, EXPECT: 3, LEFT_BODY: 3, LEFT_ANSWER: 4}


class Client(threading.Thread):
    def __init__(self, number: int, seed: str, target: Target, stop: threading.Event):
        super().__init__(name=f"client-{number}", daemon=True)
        self.number = number
        self.chance = random.Random(f"{seed}/client/{number}")
        self.maker = Maker(self.chance, number, target.has_handlers)
        self.target = target
        self.tally: Tally = target.tally
        self.stop = stop
        self.connection: Connection | None = None
        self.left = 0

    def run(self) -> None:
        while not self.stop.is_set():
            request = self.maker.next()
            manner = PLAIN
            if not request.is_bad:
                manner = self.chance.choices(list(MANNERS), list(MANNERS.values()))[0]
                if manner == SLOW_READER:
                    request = self.maker.large()
            self.one(request, manner)
            self.stop.wait(self.chance.uniform(0, THINK_SECONDS))
        self.drop()

    def one(self, request: Request, manner: str) -> None:
        begun = self.tally.begin(self.number)
        try:
            if self.left == 0 or manner == SLOW_READER:
                self.drop()
                self.connection = Connection(self.target.port, slow=manner == SLOW_READER)
                self.left = self.chance.randint(*REQUESTS_A_CONNECTION)
            self.left -= 1
            if manner in (LEFT_BODY, LEFT_ANSWER):
                self.leave(request, manner)
                return self.tally.hang_up(self.number, request, manner)
            self.send(request, manner)
            pace = None
            if manner == SLOW_READER:
                pace = (64 * 1024, self.chance.uniform(0, SLOW_SECONDS / 32))
            answer = self.connection.receive(pace)
        except NoAnswer as problem:
            self.drop()
            return self.tally.no_answer(self.number, request, manner, str(problem), begun)
        if answer.closes or request.length is not None or manner == SLOW_READER:
            self.drop()
        self.tally.answer(self.number, request, manner, answer, begun)

    def send(self, request: Request, manner: str) -> None:
        connection, body = self.connection, request.body
        if manner == CHUNKS:
            connection.send(request.head(chunked=True), *self.chunks(body))
        elif manner == SLOW_SENDER:
            connection.drip(self.drops(request.head(), body))
        elif manner == EXPECT:
            connection.send(request.head(expect=True))
            answer = connection.receive()
            if answer.status != 100:
                raise NoAnswer(f"{answer.status} instead of 100")
            connection.send(body)
        elif len(body) < 16 * 1024:
            connection.send(request.head() + body)
        else:
            connection.send(request.head(), body)
        if request.length is not None:
            connection.end_sending()

    def leave(self, request: Request, manner: str) -> None:
        head, body = request.head(), request.body
        if manner == LEFT_BODY:
            self.connection.send(head + body[: self.chance.randrange(len(body))])
        else:
            self.connection.send(head, body)
            time.sleep(self.chance.uniform(0, 0.05))
        connection, self.connection, self.left = self.connection, None, 0
        connection.hang_up(rudely=self.chance.random() < 0.5)

    def chunks(self, body: bytes) -> list[bytes]:
        pieces = self.cut(body, self.chance.randint(1, 20))
        chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]
        return [b"".join(chunks), b"0\r\n\r\n"]

    def drops(self, head: bytes, body: bytes) -> list[tuple[bytes, float]]:
        """Some are cut within the head, too."""
        pieces = self.cut(head + body, self.chance.randint(2, 40))
        # The last piece needs no pause after it.
        pauses = [self.chance.uniform(0, SLOW_SECONDS / len(pieces)) for _ in pieces[1:]] + [0.0]
        return list(zip(pieces, pauses))

    def cut(self, data: bytes, count: int) -> list[bytes]:
        places = sorted(self.chance.randint(0, len(data)) for _ in range(count - 1))
        return [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)])]

    def drop(self) -> None:
        if self.connection:
            self.connection.close()
        self.connection, self.left = None, 0


class Pinger(threading.Thread):
    """Asks /ping all the time: 200, or 502 where that can be."""

    def __init__(self, target: Target, stop: threading.Event):
        super().__init__(name="pinger", daemon=True)
        self.target = target
        self.stop = stop

    def run(self) -> None:
        connection = None
        while not self.stop.wait(PING_SECONDS):
            status, complaint = None, ""
            try:
                connection = connection or Connection(self.target.port)
                connection.send(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = connection.receive()
                status = answer.status
                if status == 502:
                    complaint = self.target.must_serve(answer.body)
                elif status != 200 or answer.body:
                    complaint = f"{status} {answer.body[:200]!r}"
            except NoAnswer as problem:
                connection, complaint = None, str(problem)
            self.target.tally.ping(status, complaint)


def stop_all(threads: list[threading.Thread], stop: threading.Event) -> list[str]:
    """Ends the load; the names of threads that do not end, which cannot be."""
    stop.set()
    limit = time.monotonic() + ANSWER_SECONDS + 2 * SLOW_SECONDS
    for thread in threads:
        thread.join(max(0.0, limit - time.monotonic()))
    return [thread.name for thread in threads if thread.is_alive()]
