"""From start to end: which versions load, when the ports open, how a start fails, how signals act."""

import json
import os
import signal
import time
import unittest

from harness import (
    ANSWER_SECONDS,
    ERROR,
    START_SECONDS,
    Server,
    accepts,
    config_file,
    free_port,
    model_config,
    models,
    run,
    scratch,
)

ALL = "model_version_policy { all { } }"
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, plain and inside IPv6
FIRST = "model_version_policy { specific { versions: 123 } }"


def listening_addresses(port):
    """The local addresses, in the kernel's hexadecimal, that listen on a TCP port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as lines:
            for line in lines.readlines()[1:]:
                address, state = line.split()[1], line.split()[3]
                host, _, hexadecimal = address.rpartition(":")
                if state == "0A" and int(hexadecimal, 16) == port:
                    found.add(host)
    return found


class Starting(unittest.TestCase):
    def versions(self, server, model="half_plus_three"):
        status, text = server.request("GET", f"/v1/models/{model}")
        self.assertEqual(status, 200, text)
        return [(v["version"], v["state"]) for v in json.loads(text)["model_version_status"]]

    def test_single_model_flags_serve_the_latest_version(self):
        base = models() / "half_plus_three"
        with Server("--model_name=half", f"--model_base_path={base}").ready() as server:
            self.assertEqual(self.versions(server, "half"), [("124", "AVAILABLE")])

    def test_several_models_with_version_policies(self):
        base = models() / "half_plus_three"
        config = config_file(
            model_config("every", ALL, base),
            model_config("first", FIRST, base),
            model_config("latest", "", base),
            model_config("two", "model_version_policy { latest { num_versions: 2 } }", base),
        )
        parameters = scratch() / "batching"
        parameters.write_text(
            "max_batch_size { value: 8 }\nbatch_timeout_micros { value: 1000 }\n"
            "num_batch_threads { value: 2 }\nmax_enqueued_batches { value: 100000000 }\n"
        )
        flags = (
            f"--model_config_file={config}",
            "--max_num_load_retries=0",
            "--enable_batching=true",
            f"--batching_parameters_file={parameters}",
            "--rest_api_timeout_in_ms=60000",
            "--rest_api_num_threads=4",
            "--tensorflow_intra_op_parallelism=1",
            "--tensorflow_inter_op_parallelism=1",
            "--per_process_gpu_memory_fraction=0.4",
            "--model_config_file_poll_wait_seconds=0",
        )
        with Server(*flags).ready() as server:
            for model in ("every", "two"):
                server.wait_loaded(model)
            both = [("124", "AVAILABLE"), ("123", "AVAILABLE")]
            self.assertEqual(self.versions(server, "every"), both)
            self.assertEqual(self.versions(server, "first"), [("123", "AVAILABLE")])
            self.assertEqual(self.versions(server, "latest"), [("124", "AVAILABLE")])
            self.assertEqual(self.versions(server, "two"), both)
            self.assertEqual(
                server.predict("every/versions/123", {"instances": [1.0]}), {"predictions": [3.5]}
            )
            for port in (server.rest_port, server.grpc_port):
                self.assertLessEqual(listening_addresses(port), LOOPBACK)
            self.assertIn(f"Running gRPC ModelServer at 127.0.0.1:{server.grpc_port} ...", server.log())
            self.assertIn(f"Exporting HTTP/REST API at:localhost:{server.rest_port} ...", server.log())

    def test_ports_open_after_every_model_has_loaded_and_sigterm_ends_it_at_once(self):
        config = config_file(model_config("half_plus_three", ALL), model_config("demo"))
        with Server(f"--model_config_file={config}") as server:
            server.wait_for(server.grpc_port)
            for loaded in ("half_plus_three version: 124", "demo version: 1"):
                self.assertIn(f"Successfully loaded servable version {{name: {loaded}}}", server.log())
            server.ready()
            start = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(timeout=ANSWER_SECONDS), -signal.SIGTERM)
            self.assertLess(time.monotonic() - start, 5)

    def test_ports_open_while_older_versions_are_still_loading(self):
        folder = self.versions_folder(models() / "half_plus_three" / "124", broken=("123",))
        config = config_file(model_config("half", ALL, folder))
        # The broken one is tried again after an hour, so it is being loaded for as long as this looks.
        flags = ("--max_num_load_retries=1", "--load_retry_interval_micros=3600000000")
        with Server(f"--model_config_file={config}", *flags).ready() as server:
            states = {version: entry["state"] for version, entry in server.states("half").items()}
            self.assertEqual(states, {"124": "AVAILABLE", "123": "LOADING"})
            answer = server.post("half/versions/123:predict", {"instances": [1]})
            self.assertEqual(answer, (404, ERROR % "Servable not found for request: Specific(half, 123)"))
            self.assertEqual(server.predict("half", {"instances": [1]}), {"predictions": [3.5]})

    def test_a_broken_older_version_stays_at_its_end_while_it_serves_on(self):
        folder = self.versions_folder(models() / "half_plus_three" / "124", broken=("123",))
        config = config_file(model_config("half", ALL, folder))
        with Server(f"--model_config_file={config}", "--max_num_load_retries=0").ready() as server:
            states = server.wait_loaded("half").states("half")
            self.assertEqual(states["124"]["state"], "AVAILABLE")
            self.assertEqual((states["123"]["state"], states["123"]["status"]["error_code"]), ("END", "DATA_LOSS"))
            self.assertIn("Can't parse", states["123"]["status"]["error_message"])
            self.assertEqual(server.predict("half", {"instances": [1]}), {"predictions": [3.5]})

    def versions_folder(self, good, broken):
        folder = scratch() / "half"
        folder.mkdir()
        (folder / good.name).symlink_to(good)
        for version in broken:
            (folder / version).symlink_to(models() / "broken" / "1")
        return folder

    def test_without_rest_port_there_is_grpc_only(self):
        base = models() / "half_plus_three"
        with Server(f"--model_base_path={base}", rest=False) as server:
            server.wait_for(server.grpc_port)
            self.assertFalse(accepts(server.rest_port))
            self.assertNotIn("HTTP/REST", server.log())

    def test_an_empty_configuration_serves_nothing(self):
        with Server(f"--model_config_file={config_file()}").ready() as server:
            self.assertEqual(server.post("x:predict", {"instances": [1]})[0], 404)


class FailingToStart(unittest.TestCase):
    def fail_to_start(self, *arguments):
        result = run(f"--port={free_port()}", *arguments)
        self.assertEqual(result.returncode, 255, result.stdout + result.stderr)
        return result

    def test_a_broken_model_stops_the_start(self):
        rest_port = free_port()
        config = config_file(model_config("half_plus_three"), model_config("broken"))
        result = self.fail_to_start(
            f"--model_config_file={config}", f"--rest_api_port={rest_port}", "--max_num_load_retries=0"
        )
        self.assertRegex(
            result.stdout,
            r"(?m)^Failed to start server. Error: Unknown: 1 servable\(s\) did not become available: "
            r"\{\{\{name: broken version: 1\} due to error: DATA_LOSS: Can't parse .*\}, \}$",
        )
        self.assertRegex(result.stderr, r": E .*\{name: broken version: 1\} cannot be loaded: DATA_LOSS")
        self.assertFalse(accepts(rest_port))

    def test_ports_stay_closed_until_the_failure(self):
        config = config_file(model_config("half_plus_three"), model_config("broken"))
        flags = ("--max_num_load_retries=3", "--load_retry_interval_micros=300000")
        with Server(f"--model_config_file={config}", *flags) as server:
            deadline = time.monotonic() + START_SECONDS
            while server.process.poll() is None:
                self.assertLess(time.monotonic(), deadline)
                self.assertFalse(accepts(server.grpc_port) or accepts(server.rest_port))
                time.sleep(0.05)
            self.assertEqual(server.process.returncode, 255)
            self.assertIn("Retrying of Loading servable: {name: broken version: 1} retry: 3", server.log())

    def test_an_empty_version_folder(self):
        (scratch_model := scratch() / "empty" / "1").mkdir(parents=True)
        result = self.fail_to_start(f"--model_base_path={scratch_model.parent}", "--max_num_load_retries=0")
        self.assertIn("Could not find SavedModel .pb or .pbtxt", result.stdout)

    def test_no_base_path(self):
        result = self.fail_to_start("--model_base_path=/no/such/model", "--max_num_load_retries=0")
        self.assertIn("Could not find base path /no/such/model for servable default", result.stdout)

    def test_no_versions(self):
        folder = scratch()
        os.mkdir(folder / "not-a-number")
        flags = ("--max_num_load_retries=1", "--file_system_poll_wait_seconds=0")
        result = self.fail_to_start(f"--model_base_path={folder}", *flags)
        warning = (
            f"W local_model_server/storage.py] No versions of servable default found under base path {folder}"
        )
        self.assertEqual(result.stderr.count(warning), 2)

    def test_a_missing_specific_version_is_warned_about(self):
        policy = "model_version_policy { specific { versions: 7 } }"
        config = config_file(model_config("demo", policy))
        result = self.fail_to_start(f"--model_config_file={config}", "--max_num_load_retries=0")
        self.assertIn("Version 7 of servable demo, which was requested", result.stderr)

    def test_a_label_for_a_version_that_is_not_served(self):
        config = config_file(model_config("demo", "version_labels { key: 'stable' value: 9 }"))
        result = self.fail_to_start(f"--model_config_file={config}")
        self.assertIn("Request to assign label to version 9 of model demo", result.stdout)

    def test_a_grpc_port_in_use(self):
        flag = f"--model_base_path={models()}/demo"
        with Server(flag, rest=False) as server:
            server.wait_for(server.grpc_port)
            result = run(f"--port={server.grpc_port}", flag)
        self.assertEqual(result.returncode, 255)
        self.assertIn("Failed to BuildAndStart gRPC server", result.stdout)
