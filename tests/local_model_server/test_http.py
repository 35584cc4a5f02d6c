"""The transport under REST: connections, bodies, concurrency."""

import gzip
import json
import socket
import threading
import time
import unittest

from harness import ANSWER_SECONDS, shared_server

PATH = "/v1/models/half_plus_three:predict"
BODY = b'{"instances": [1.0, 2.0, 5.0]}'
ANSWER = b'{\n    "predictions": [3.5, 4.0, 5.5\n    ]\n}'


class Raw:
    """A socket to the server, for what http.client does not do."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", shared_server().rest_port), ANSWER_SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, text):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode())
        return self

    def until(self, end):
        data = b""
        while not data.endswith(end):
            part = self.socket.recv(65536)
            if not part:
                raise AssertionError(f"closed after {data!r}")
            data += part
        return data

    def rest(self):
        data = b""
        while part := self.socket.recv(65536):
            data += part
        return data


class Connections(unittest.TestCase):
    def test_keep_alive(self):
        connection = shared_server().connect()
        local = None
        for _ in range(3):
            connection.request("POST", PATH, BODY)
            response = connection.getresponse()
            self.assertEqual(response.getheader("Content-Type"), "application/json")
            self.assertEqual(response.getheader("Content-Length"), str(len(ANSWER)))
            self.assertEqual(response.read(), ANSWER)
            local = local or connection.sock.getsockname()
            self.assertEqual(connection.sock.getsockname(), local, "the same connection")
        connection.close()

    def test_keep_alive_after_an_error(self):
        connection = shared_server().connect()
        for body, status in ((b"abc", 400), (BODY, 200)):
            connection.request("POST", PATH, body)
            response = connection.getresponse()
            response.read()
            self.assertEqual(response.status, status)
        connection.close()

    def test_close_when_asked(self):
        for head in ("HTTP/1.1\r\nConnection: close", "HTTP/1.0\r\nX: y"):
            with self.subTest(head), Raw() as raw:
                answer = raw.send(f"GET /v1/models/demo {head}\r\n\r\n").rest()
                self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"))
                self.assertIn(b"\r\nConnection: close\r\n", answer)

    def test_head_and_body_arrive_together(self):
        with Raw() as raw:
            raw.send(f"POST {PATH} HTTP/1.1\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
            self.assertTrue(raw.socket.recv(65536).endswith(b"\r\n\r\n" + ANSWER))

    def test_chunked_body(self):
        chunks = b"".join(b"%x \r\n%s\r\n" % (len(part), part) for part in (BODY[:5], BODY[5:]))
        head = f"POST {PATH} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        with Raw() as raw:
            for _ in range(2):  # the trailers are consumed, so the next request is found
                raw.send(head + chunks + b"0\r\nTrailer: x\r\n\r\n")
                self.assertTrue(raw.until(ANSWER).startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_gzip_body(self):
        connection = shared_server().connect()
        for body, status in ((gzip.compress(BODY), 200), (b"no gzip", 400)):
            connection.request("POST", PATH, body, {"Content-Encoding": "gzip"})
            response = connection.getresponse()
            response.read()
            self.assertEqual(response.status, status)
        connection.close()

    def test_expect_continue(self):
        head = f"POST {PATH} HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {len(BODY)}\r\n\r\n"
        with Raw() as raw:
            raw.send(head).until(b"HTTP/1.1 100 Continue\r\n\r\n")
            raw.send(BODY).until(ANSWER)

    def test_no_http(self):
        chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        for text, status in (
            ("hello\r\n\r\n", 400),
            ("\r\nGET / HTTP/1.1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n" + "A: b\r\n" * 201, 400),
            ("GET /" + "x" * 65532, 400),
            (chunked + "z\r\n", 413),
            (chunked + "1;ext=1\r\na\r\n0\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nExpect: more\r\n\r\n", 417),
        ):
            with self.subTest(text[:40]), Raw() as raw:
                answer = raw.send(text).rest()
                self.assertTrue(answer.startswith(b"HTTP/1.1 %d " % status), answer)
                self.assertIn(b"\r\nConnection: close\r\n", answer)

    def test_the_body_of_a_head_is_the_next_request_and_its_answer_has_no_length(self):
        inner = f"POST {PATH} HTTP/1.1\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        with Raw() as raw:
            raw.send(b"HEAD /v1/models/demo HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(inner), inner))
            first, second = raw.until(ANSWER).split(b"HTTP/1.1 200 OK", 1)
        self.assertTrue(first.startswith(b"HTTP/1.1 400 Bad Request\r\n"), first)
        self.assertNotIn(b"Content-Length", first)
        self.assertIn(b"Malformed request: HEAD /v1/models/demo", first)
        self.assertIn(b"Content-Length", second)

    def test_bodies_of_other_methods_are_read(self):
        status = b"GET /v1/models/demo HTTP/1.1\r\nConnection: close\r\n\r\n"
        for method in (b"GET", b"DELETE", b"OPTIONS", b"PUT", b"PATCH"):
            with self.subTest(method), Raw() as raw:
                head = method + b" /v1/models/demo HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(status)
                answers = raw.send(head + status + status).rest()
                self.assertEqual(answers.count(b"HTTP/1.1 "), 2, answers)

    def test_methods_that_are_not_allowed(self):
        for method in ("TRACE", "get", "BREW"):
            with self.subTest(method), Raw() as raw:
                answer = raw.send(f"{method} /v1/models/demo HTTP/1.1\r\n\r\n").rest()
                self.assertTrue(answer.startswith(b"HTTP/1.1 501 Not Implemented\r\n"), answer)

    def test_the_answer_to_connect_has_no_length_and_no_end(self):
        with Raw() as raw:
            answer = raw.send("CONNECT /v1/models/demo HTTP/1.1\r\n\r\n").until(b"</HTML>\n")
            self.assertTrue(answer.startswith(b"HTTP/1.1 501 Not Implemented\r\n"), answer)
            self.assertNotIn(b"Content-Length", answer)
            raw.send(f"POST {PATH} HTTP/1.1\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY).until(ANSWER)

    def test_a_client_that_goes_away_harms_nobody(self):
        with Raw() as raw:
            raw.send(f"POST {PATH} HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
        self.assertEqual(shared_server().post("half_plus_three:predict", BODY)[0], 200)


class Concurrency(unittest.TestCase):
    def test_many_clients(self):
        problems = []

        def client(number):
            connection = shared_server().connect()
            for i in range(20):
                value = float(number * 100 + i)
                connection.request("POST", PATH, json.dumps({"instances": [value]}))
                answer = json.loads(connection.getresponse().read())
                if answer != {"predictions": [value / 2 + 3]}:
                    problems.append((value, answer))
            connection.close()

        threads = [threading.Thread(target=client, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(ANSWER_SECONDS)
        self.assertEqual(problems, [])

    def test_a_slow_request_holds_up_no_other(self):
        ended = []

        def slow():
            shared_server().predict("slow", {"instances": [2.0]})
            ended.append(time.monotonic())

        thread = threading.Thread(target=slow)
        thread.start()
        shared_server().predict("half_plus_three", {"instances": [1.0]})
        answered = time.monotonic()
        thread.join(ANSWER_SECONDS)
        self.assertLess(answered, ended[0])
