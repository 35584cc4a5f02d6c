"""From start to end: the launcher, what is refused, which versions load, when the ports open, how signals act."""

import os
import signal
import socket
import sys

from tests.harness.case import ServerCase
from tests.harness.client import ANSWER_SECONDS, run
from tests.harness.constants import MODELS, STAND_IN
from tests.harness.ports import free_ports
from tests.harness.processes import environment

from .case import StandIn, batching, config, model, shared

INSTANCES = '{"instances": [1]}'


def refusal(*arguments, python=sys.executable):
    """What a stand-in prints that does not start."""
    env = {**environment(), "MODEL_SERVER_PYTHON": str(python)}
    return run(STAND_IN, f"--port={free_ports()}", *arguments, code=255, env=env)


class Refused(ServerCase):
    def test_starts_that_are_refused(self):
        for text, *arguments in (
            ("argument --port: invalid int value: 'x'", "--port=x"),
            ("argument --enable_batching: invalid", "--enable_batching=maybe"),
            ("Failed to start server. Error: INVALID_ARGUMENT: server_options.model_config_file is empty!",),
            ("unknown argument: --no_such_flag=1\nusage: ", "--no_such_flag=1", "serve"),
            ("INVALID_ARGUMENT: Invalid protobuf file", config("config { nome: 'x' }")),
            ("INVALID_ARGUMENT: Invalid protobuf file", config(), *batching(batch_size=8)),
            ("No such file or directory: '/no/such/file'", "--model_config_file=/no/such/file"),
            ("an absolute base_path", config(model("demo", "demo"))),
            ("Could not find base path /no/such/model for servable demo", config(model("demo", "/no/such/model"))),
            ("No versions of servable demo found under base path", config(model("demo", self.folder()))),
            ("No versions of servable demo found under base path", config(model("demo", versions=[7]))),
            ("{{{name: broken version: 1} due to error: DATA_LOSS: Can't pars", config(model("demo"), model("broken"))),
            ("Failed to BuildAndStart gRPC server", f"--port={shared().grpc_port}", config(model("demo"))),
        ):
            with self.subTest(text):
                self.assertIn(text, refusal(*arguments))

    def test_without_python_or_tensorflow(self):
        bare = self.folder() / "python3"
        bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
        bare.chmod(0o755)
        for python in ("/no/such/python3", bare):
            self.assertIn(f"there is no {python} with TensorFlow here", refusal(python=python))


class Serving(ServerCase):
    def test_help_and_version_also_through_a_link(self):
        link = self.folder() / "tensorflow_model_server"
        link.symlink_to(STAND_IN)
        for executable in (STAND_IN, link):
            output = run(executable, "--version", env=environment())
            self.assertEqual(output, "TensorFlow ModelServer: 2.19.0+local\n")
        self.assertIn("--rest_api_timeout_in_ms", run(STAND_IN, "--help", env=environment()))

    def test_ports_are_on_loopback_and_an_unknown_flag_does_not_matter(self):
        self.assertIn("unknown argument: --no_such_flag=1\n", shared().log())
        self.assertIn(f"Running gRPC ModelServer at 127.0.0.1:{shared().grpc_port} ...", shared().log())
        for port in (shared().grpc_port, shared().rest_port):
            with socket.socket() as other:  # reaches a server that listens on all addresses
                self.assertNotEqual(other.connect_ex(("127.0.0.2", port)), 0)

    def test_older_versions_load_while_it_serves_and_sigterm_ends_it_at_once(self):
        folder = self.folder()
        (folder / "124").symlink_to(MODELS / "half_plus_three" / "124")
        (folder / "123").mkdir()
        os.mkfifo(pipe := folder / "123" / "saved_model.pb")  # its reader waits for a writer
        with StandIn(config(model("half", folder, versions=(123, 124)))) as server:
            server.wait_listening(server.rest_port)
            self.assertEqual(server.states("half"), {124: "AVAILABLE", 123: "LOADING"})
            self.assertEqual(server.post("half/versions/123:predict", INSTANCES).status, 404)
            self.assertEqual(server.post("half:predict", INSTANCES).status, 200)
            writer = os.open(pipe, os.O_RDWR)
            (folder / "other").write_bytes(b"this is no SavedModel")
            os.replace(folder / "other", pipe)  # for when the file is opened once more
            os.close(writer)
            server.wait_until(lambda: server.states("half")[123] != "LOADING", lambda: "123 is still LOADING")
            self.assertEqual(server.states("half")[123], "END")
            self.assertEqual(server.post("half:predict", INSTANCES).status, 200)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(ANSWER_SECONDS), -signal.SIGTERM)
