"""The launcher, the command line and the configuration files: what is refused, and how."""

import pathlib
import sys
import unittest

from harness import EXECUTABLE, Server, config_file, free_port, model_config, models, run, scratch, write


class CommandLine(unittest.TestCase):
    def assert_refused(self, result, text):
        self.assertEqual(result.returncode, 255, result.stdout + result.stderr)
        self.assertIn(text, result.stdout + result.stderr)

    def test_help_says_what_this_is(self):
        result = run("--help")
        self.assertEqual(result.returncode, 0)
        self.assertIn("for development, demos and tests\nonly", result.stdout)
        self.assertIn("--rest_api_timeout_in_ms", result.stdout)

    def test_version(self):
        result = run("--version")
        self.assertEqual(result.returncode, 0)
        self.assertRegex(
            result.stdout, r"^TensorFlow ModelServer: \d+\.\d+.*\nTensorFlow Library: \d+\.\d+.*\n$"
        )

    def test_what_it_does_not_know_is_printed_and_it_goes_on(self):
        for arguments in (("--no_such_flag=1", "--another"), ("serve",)):
            result = run("--port=1", *arguments)
            self.assertTrue(result.stdout.startswith(f"unknown argument: {arguments[0]}\nusage: "), result.stdout)
            self.assertIn("Failed to start server. Error: Invalid argument: Both", result.stdout)

    def test_it_serves_in_spite_of_an_unknown_flag(self):
        with Server(f"--model_base_path={models()}/demo", "--no_such_flag=1").ready() as server:
            self.assertIn("unknown argument: --no_such_flag=1\n", server.log())

    def test_bad_values(self):
        for flag in ("--port=x", "--enable_batching=maybe", "--per_process_gpu_memory_fraction=all"):
            with self.subTest(flag):
                self.assert_refused(run(flag), flag.split("=")[0])

    def test_nothing_to_serve(self):
        self.assert_refused(run(), "Failed to start server. Error: Invalid argument: Both")

    def test_first_log_line_says_what_this_is(self):
        self.assertIn("never for an image", run().stderr.splitlines()[0])

    def test_a_link_finds_the_server(self):
        link = scratch() / "tensorflow_model_server"
        link.symlink_to(EXECUTABLE)
        self.assertEqual(run("--version", executable=link).returncode, 0)

    def test_without_tensorflow(self):
        bare = pathlib.Path(write(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n', "python3"))
        bare.chmod(0o755)
        self.assert_refused(run("--port=1", python=bare), "lacks tensorflow")

    def test_without_python(self):
        self.assert_refused(run(python="/no/such/python3"), "there is no /no/such/python3")


class ConfigFiles(unittest.TestCase):
    def refuse(self, text, *arguments):
        result = run(f"--port={free_port()}", "--max_num_load_retries=0", *arguments)
        self.assertEqual(result.returncode, 255, result.stdout + result.stderr)
        self.assertIn("Failed to start server. Error: ", result.stdout)
        self.assertIn(text, result.stdout)

    def test_models(self):
        demo = model_config("demo")
        for text, path in (
            ("Invalid protobuf file", write("model_config_list {")),
            ("Invalid protobuf file", write("model_config_list { config { nome: 'x' } }")),
            ("/no/such/file: No such file", "/no/such/file"),
            ("absolute path", config_file(model_config("demo", base_path="demo"))),
            ("model_platform", write("model_config_list { config { name: 'x' base_path: '/x' } }")),
            ("multiple times", config_file(demo, demo)),
            ("custom model config", write("custom_model_config { }")),
        ):
            with self.subTest(text):
                self.refuse(text, f"--model_config_file={path}")

    def test_batching(self):
        base = [f"--model_base_path={models()}/broken", "--enable_batching=true"]
        for text, parameters in (
            ("Invalid protobuf file", "max_batch_size: 8"),
            ("Invalid protobuf file", "batch_size { value: 8 }"),
            ("max_batch_size must be positive; was 0", "max_batch_size { value: 0 }"),
            ("num_batch_threads must be positive; was -1", "num_batch_threads { value: -1 }"),
            ("batch_timeout_micros must be non-negative", "batch_timeout_micros { value: -1 }"),
            ("monotonically increasing", "max_batch_size { value: 8 } allowed_batch_sizes: [8, 4]"),
            ("last entry was 4; expected 8", "max_batch_size { value: 8 } allowed_batch_sizes: [2, 4]"),
        ):
            with self.subTest(text):
                self.refuse(text, *base, f"--batching_parameters_file={write(parameters)}")

    def test_batching_parameters_without_batching(self):
        parameters = f"--batching_parameters_file={write('max_batch_size { value: 8 }')}"
        self.refuse("without setting", f"--model_base_path={models()}/demo", parameters)
