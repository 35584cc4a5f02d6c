"""From start to end: the launcher, what is refused, which versions load, when the ports open, how signals act."""

import os
import signal
import socket
import sys
import unittest

from harness import ANSWER_SECONDS, EXECUTABLE, MODELS, Server, batching, config, model, run, scratch, shared_server


class Refused(unittest.TestCase):
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
            ("No versions of servable demo found under base path", config(model("demo", scratch()))),
            ("No versions of servable demo found under base path", config(model("demo", versions=[7]))),
            ("{{{name: broken version: 1} due to error: DATA_LOSS: Can't pars", config(model("demo"), model("broken"))),
        ):
            with self.subTest(text):
                code, output = run(*arguments)
                self.assertEqual(code, 255, output)
                self.assertIn(text, output)

    def test_a_grpc_port_in_use(self):
        code, output = run(f"--port={shared_server().grpc_port}", config(model("half_plus_three")))
        self.assertEqual(code, 255)
        self.assertIn("Failed to BuildAndStart gRPC server", output)


class Launcher(unittest.TestCase):
    def test_help_and_version_also_through_a_link(self):
        link = scratch() / "tensorflow_model_server"
        link.symlink_to(EXECUTABLE)
        for executable in (EXECUTABLE, link):
            code, output = run("--version", executable=executable)
            self.assertEqual((code, output), (0, "TensorFlow ModelServer: 2.19.0+local\n"))
        code, output = run("--help")
        self.assertEqual(code, 0)
        self.assertIn("--rest_api_timeout_in_ms", output)

    def test_without_python_or_tensorflow(self):
        bare = scratch() / "python3"
        bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
        bare.chmod(0o755)
        for python in ("/no/such/python3", bare):
            code, output = run(python=python)
            self.assertEqual(code, 255)
            self.assertIn(f"there is no {python} with TensorFlow here", output)


class Serving(unittest.TestCase):
    def test_ports_are_on_loopback_and_an_unknown_flag_does_not_matter(self):
        server = shared_server()
        self.assertIn("unknown argument: --no_such_flag=1\n", server.log())
        self.assertIn(f"Running gRPC ModelServer at 127.0.0.1:{server.grpc_port} ...", server.log())
        for port in (server.grpc_port, server.rest_port):
            with socket.socket() as other:  # reaches a server that listens on all addresses
                self.assertNotEqual(other.connect_ex(("127.0.0.2", port)), 0)

    def test_older_versions_load_while_it_serves_and_sigterm_ends_it_at_once(self):
        folder = scratch()
        (folder / "124").symlink_to(MODELS / "half_plus_three" / "124")
        (folder / "123").mkdir()
        os.mkfifo(pipe := folder / "123" / "saved_model.pb")  # its reader waits for a writer
        with Server(config(model("half", folder, versions=(123, 124)))) as server:
            states = {version: entry["state"] for version, entry in server.states("half").items()}
            self.assertEqual(states, {124: "AVAILABLE", 123: "LOADING"})
            self.assertEqual(server.post("half/versions/123:predict", '{"instances": [1]}')[0], 404)
            self.assertEqual(server.post("half:predict", '{"instances": [1]}')[0], 200)
            writer = os.open(pipe, os.O_RDWR)
            (folder / "other").write_bytes(b"this is no SavedModel")
            os.replace(folder / "other", pipe)  # for when the file is opened once more
            os.close(writer)
            server.wait_until(lambda: server.states("half")[123]["state"] != "LOADING")
            self.assertEqual(server.states("half")[123]["state"], "END")
            self.assertEqual(server.post("half:predict", '{"instances": [1]}')[0], 200)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(ANSWER_SECONDS), -signal.SIGTERM)
