"""The handler for all models from S3: what is downloaded, as whom, and what a start that fails says.

The fake model server takes the place of TensorFlow Serving: the handler of these tests asks no model.
"""

import itertools
import json
import unittest

from aws import ENVIRONMENT_KEYS, KEYS, PAGE, REGION, Elsewhere, Garbage, Gate, Metadata, Store, TaskCredentials
from harness import FAKE_MODEL_SERVER, HOST, MultiModelCase, free_ports

BUCKET = "handlers"
# It tells what is in its folder.
SCRIPT = b'''
import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))


def files():
    for folder, _, names in os.walk(HERE):
        for name in names:
            path = os.path.join(folder, name)
            if not path.endswith(".pyc"):
                yield os.path.relpath(path, HERE), open(path, "rb").read().decode("latin-1")


FILES = dict(files())


def handler(data, context):
    return json.dumps({"name": os.path.basename(HERE), "files": FILES}), "application/json"
'''


class UniversalCase(MultiModelCase):
    @classmethod
    def setUpClass(cls):
        store = Store()
        cls.addClassCleanup(store.stop)
        cls.gate = cls.service(Gate, store.wait_ready())
        cls.store = store.client()
        cls.make_bucket(BUCKET)
        cls.prefixes = itertools.count()
        cls.models = cls.folder()
        (cls.models / "m" / "model" / "1").mkdir(parents=True)
        (cls.models / "m" / "model" / "1" / "saved_model.pb").touch()

    @classmethod
    def service(cls, kind, *arguments):
        service = kind(*arguments)
        cls.addClassCleanup(service.stop)
        return service

    @classmethod
    def make_bucket(cls, name):
        cls.store.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})

    def put(self, objects, bucket=BUCKET):
        """Puts objects, by their keys below a prefix of their own; that prefix, without a slash."""
        prefix = f"team/{next(self.prefixes)}"
        for key, content in objects.items():
            self.store.put_object(Bucket=bucket, Key=f"{prefix}{key}", Body=content)
        return prefix

    def serve(self, prefix, bucket=BUCKET, keys=ENVIRONMENT_KEYS, **env):
        """A server that downloads its handler through the gate, with nobody's settings but these."""
        names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "DEFAULT_REGION", "ENDPOINT_URL")
        names += ("CONTAINER_CREDENTIALS_RELATIVE_URI", "CONTAINER_CREDENTIALS_FULL_URI")
        names += ("CONTAINER_AUTHORIZATION_TOKEN", "CONTAINER_AUTHORIZATION_TOKEN_FILE")
        settings = {
            **{f"AWS_{name}": "" for name in names},
            # Nobody's: where no test wants to go.
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{HOST}:9",
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": self.gate.address,
            "SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET": bucket,
            "SAGEMAKER_MULTI_MODEL_UNIVERSAL_PREFIX": prefix,
            **keys,
            **env,
        }
        return self.start_multi(self.models, models=1, model_server=FAKE_MODEL_SERVER, env=settings)

    def downloaded(self, prefix, **options):
        """What the handler has in its folder, and that folder's name."""
        server = self.serve(prefix, **options).wait_ready()
        answer = self.load(server, "m", str(self.models / "m" / "model"))
        self.assertEqual(answer.status, 200, answer.text)
        answer = self.invoke_model(server, "m", "{}")
        self.assertEqual(answer.status, 200, answer.text)
        self.ends_well(server)
        told = json.loads(answer.body)
        return {path: text.encode("latin-1") for path, text in told["files"].items()}, told["name"]


class Download(UniversalCase):
    def test_prefixes_with_and_without_slash_and_code(self):
        files = {
            "inference.py": SCRIPT,
            "helper.py": b"HELPER = 1\n",
            "lib/inner/__init__.py": b"",
            "lib/inner/deep/module.py": b"DEEP = True\n",
            "data/table.bin": bytes(range(256)),
        }
        for folder in ("/", "/code/", "/a/b c/"):
            prefix = self.put({folder + path: content for path, content in files.items()})
            inner = "/a/b c" if folder.startswith("/a") else ""
            for end in ("", "/"):
                with self.subTest(folder, end=end):
                    self.assertEqual(self.downloaded(prefix + inner + end), (files, "code"))

    def test_a_whole_bucket(self):
        self.make_bucket("whole")
        for key, content in {"inference.py": SCRIPT, "lib/x.py": b"X = 1\n"}.items():
            self.store.put_object(Bucket="whole", Key=key, Body=content)
        expected = {"inference.py": SCRIPT, "lib/x.py": b"X = 1\n"}
        self.assertEqual(self.downloaded("", bucket="whole"), (expected, "code"))

    def test_several_pages(self):
        files = {f"lib/package/m{number:02}.py": f"N = {number}\n".encode() for number in range(3 * PAGE)}
        files["inference.py"] = SCRIPT
        prefix = self.put({f"/{path}": content for path, content in files.items()})
        before = len(self.gate.requests)
        self.assertEqual(self.downloaded(prefix), (files, "code"))
        pages = [path for _, path in self.gate.requests[before:] if "list-type=2" in path]
        self.assertEqual(len(pages), 4)
        self.assertEqual(len([path for path in pages if "continuation-token=" in path]), 3)

    def test_unusual_keys(self):
        names = ("a b", "a+b", "100%", "%41", "a&b=c", "ä/模型", "q?x#y", "it's \"so\"", "a:b@c", "~a_b-c.d", "<x>")
        files = {f"data/{name}": name.encode() for name in names} | {"inference.py": SCRIPT}
        prefix = self.put({f"/{path}": content for path, content in files.items()})
        self.assertEqual(self.downloaded(prefix), (files, "code"))

    def test_large_and_empty_objects(self):
        files = {"inference.py": SCRIPT, "weights.bin": bytes(range(256)) * 50_000, "empty": b""}
        prefix = self.put({f"/{path}": content for path, content in files.items()})
        self.assertEqual(self.downloaded(prefix), (files, "code"))

    def test_what_stands_for_folders_is_left_out(self):
        prefix = self.put({"/": b"", "/lib/": b"", "/inference.py": SCRIPT})
        self.assertEqual(self.downloaded(prefix + "/"), ({"inference.py": SCRIPT}, "code"))

    def test_neighbours_are_left_out(self):
        others = {"-old/inference.py": b"raise SystemExit", "inference.py": b"raise SystemExit", "2/x.py": b""}
        prefix = self.put({"/inference.py": SCRIPT, **others})
        self.assertEqual(self.downloaded(prefix), ({"inference.py": SCRIPT}, "code"))

    def test_another_program(self):
        prefix = self.put({"/main.py": SCRIPT})
        self.assertEqual(self.downloaded(prefix, SAGEMAKER_PROGRAM="main.py")[0], {"main.py": SCRIPT})

    def test_a_store_that_is_busy_for_a_moment(self):
        prefix = self.put({"/inference.py": SCRIPT})
        self.gate.busy = 3
        self.assertEqual(self.downloaded(prefix), ({"inference.py": SCRIPT}, "code"))

    def test_nothing_is_left_behind(self):
        temporary = self.folder()
        self.downloaded(self.put({"/inference.py": SCRIPT}), TMPDIR=str(temporary))
        self.assertEqual(list(temporary.iterdir()), [])


class Credentials(UniversalCase):
    """Each request's signature is computed again, by the gate."""

    def visits_as(self, key, **options):
        self.gate.visitors.clear()
        files, _ = self.downloaded(self.put({"/inference.py": SCRIPT}), **options)
        self.assertEqual(files, {"inference.py": SCRIPT})
        self.assertEqual(self.gate.visitors, {key})

    def test_keys_of_the_environment(self):
        self.visits_as("AKIDLASTING")

    def test_keys_with_a_session_token(self):
        secret, token = KEYS["ASIATASK"]
        keys = {"AWS_ACCESS_KEY_ID": "ASIATASK", "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token}
        self.visits_as("ASIATASK", keys=keys)

    def test_the_container_credentials_endpoint(self):
        service = self.service(TaskCredentials)
        address = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{service.address}/v2/credentials?id=1"}
        with self.subTest("token in the environment"):
            self.visits_as("ASIATASK", keys=address, AWS_CONTAINER_AUTHORIZATION_TOKEN=service.TOKEN)
        file = self.folder() / "token"
        file.write_text(f"{service.TOKEN}\n")
        with self.subTest("token in a file"):
            self.visits_as("ASIATASK", keys=address, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(file))
        with self.subTest("both: the file has the newer one"):
            tokens = {"AWS_CONTAINER_AUTHORIZATION_TOKEN": "old", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file)}
            self.visits_as("ASIATASK", keys=address, **tokens)
        with self.subTest("keys come first"):
            self.visits_as("AKIDLASTING", **address)

    def test_the_instance_metadata_service(self):
        service = self.service(Metadata)
        self.visits_as("ASIAROLE", keys={}, AWS_EC2_METADATA_SERVICE_ENDPOINT=service.address)
        paths = [path for _, path in service.requests]
        self.assertEqual(paths, ["/latest/api/token", service.ROLES, service.ROLES + service.role])

    def test_names_of_less_rank(self):
        endpoint = {"AWS_ENDPOINT_URL_S3": "", "AWS_ENDPOINT_URL": self.gate.address}
        self.visits_as("AKIDLASTING", AWS_REGION="", AWS_DEFAULT_REGION=REGION, **endpoint)


class Refusals(UniversalCase):
    """Starts that fail: exit code 1, and one message that says it all."""

    def refused(self, *parts, prefix=None, **options):
        prefix = prefix or self.put({"/inference.py": SCRIPT})
        temporary = self.folder()
        server = self.serve(prefix, TMPDIR=str(temporary), **options)
        self.assertEqual(server.wait(60), 1, server.last_lines())
        messages = [line for line in server.log().splitlines() if line.startswith("sagemaker-tfs: ")]
        self.assertEqual(len(messages), 1, server.last_lines())
        # It is the last line, too.
        self.assertEqual(server.log().splitlines()[-1], messages[0])
        bucket = options.get("bucket", BUCKET)
        for part in (f"s3://{bucket}/{prefix}", *parts):
            self.assertIn(part, messages[0])
        for secret, token in KEYS.values():
            self.assertNotIn(secret, server.log())
            self.assertNotIn("X-Amz-", server.log())
        self.assertEqual(server.children(), [])
        self.assertEqual(list(temporary.iterdir()), [])

    def test_no_such_bucket(self):
        self.refused("status 404", "NoSuchBucket", bucket="nobodys")

    def test_nothing_there(self):
        self.refused("has no inference.py", "0 files", prefix="nowhere/")

    def test_another_script_there(self):
        self.refused("has no inference.py", "1 files", prefix=self.put({"/inference.txt": SCRIPT}))

    def test_an_unknown_access_key(self):
        keys = {**ENVIRONMENT_KEYS, "AWS_ACCESS_KEY_ID": "AKIDNOBODY"}
        self.refused("status 403", "InvalidAccessKeyId", keys=keys)

    def test_a_wrong_secret_key(self):
        keys = {**ENVIRONMENT_KEYS, "AWS_SECRET_ACCESS_KEY": "another"}
        self.refused("status 403", "SignatureDoesNotMatch", keys=keys)

    def test_a_missing_session_token(self):
        keys = {"AWS_ACCESS_KEY_ID": "ASIATASK", "AWS_SECRET_ACCESS_KEY": KEYS["ASIATASK"][0]}
        self.refused("status 403", "InvalidToken", keys=keys)

    def test_another_region(self):
        self.refused("status 403", "AuthorizationQueryParametersError", AWS_REGION="us-west-2")

    def test_an_object_that_may_not_be_read(self):
        prefix = self.put({"/inference.py": SCRIPT, "/lib/secret.py": b""})
        self.gate.forbidden.add("secret.py")
        self.refused(f"{prefix}/lib/secret.py", "status 403", "AccessDenied", prefix=prefix)

    def test_no_credentials_at_all(self):
        nobody = f"http://{HOST}:{free_ports(1)}"
        self.refused(
            "no credentials", "AWS_ACCESS_KEY_ID", nobody, keys={}, AWS_EC2_METADATA_SERVICE_ENDPOINT=nobody
        )

    def test_an_instance_without_a_role(self):
        service = self.service(Metadata, None)
        self.refused(
            "no credentials", service.address, "status 404", keys={}, AWS_EC2_METADATA_SERVICE_ENDPOINT=service.address
        )

    def test_a_container_without_the_token(self):
        service = self.service(TaskCredentials)
        address = f"{service.address}/v2/credentials?id=1"
        self.refused(
            "no credentials", address, "status 401", keys={"AWS_CONTAINER_CREDENTIALS_FULL_URI": address}
        )

    def test_a_token_file_that_is_not_there(self):
        keys = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/"}
        file = str(self.folder() / "absent")
        self.refused("no credentials", file, keys=keys, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=file)

    def test_a_store_that_is_down(self):
        nobody = f"http://{HOST}:{free_ports(1)}"
        self.refused("cannot be listed", nobody, AWS_ENDPOINT_URL_S3=nobody)

    def test_a_store_that_stays_busy(self):
        self.gate.busy = 1000
        self.addCleanup(setattr, self.gate, "busy", 0)
        self.refused("cannot be listed", "status 503", "SlowDown")

    def test_what_is_no_store(self):
        self.refused("its response cannot be read", AWS_ENDPOINT_URL_S3=self.service(Garbage).address)

    def test_a_bucket_of_another_region(self):
        self.refused("status 301", "PermanentRedirect", AWS_ENDPOINT_URL_S3=self.service(Elsewhere).address)

    def test_an_address_that_is_none(self):
        self.refused("nowhere", AWS_ENDPOINT_URL_S3="nowhere")

    def test_keys_that_lead_out_of_the_folder(self):
        for key in ("/../../escaped.py", "/lib/../../../escaped.py", "/.."):
            with self.subTest(key):
                prefix = self.put({"/inference.py": SCRIPT, key: b"print('escaped')"})
                self.refused(f"{prefix}{key}", "leads out of the folder", prefix=prefix)

    def test_a_file_where_another_needs_a_folder(self):
        prefix = self.put({"/inference.py": SCRIPT, "/lib": b"", "/lib/x.py": b""})
        self.refused(f"{prefix}/lib/x.py", "cannot be downloaded", prefix=prefix)

    def test_a_script_that_cannot_be_used(self):
        prefix = self.put({"/inference.py": b"import no_such_module\n"})
        server = self.serve(prefix)
        self.assertEqual(server.wait(60), 1, server.last_lines())
        self.assertIn("No module named 'no_such_module'", server.log())
        self.assertEqual(server.children(), [])


if __name__ == "__main__":
    unittest.main()
