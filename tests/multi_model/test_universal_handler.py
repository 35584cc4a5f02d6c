"""The handler for all models from S3: what is downloaded, as whom, and what a start that fails says.

The fake model server takes the place of TensorFlow Serving: the handler of these tests asks no model.
"""

import itertools

from werkzeug.wrappers import Response

from tests.harness.constants import FAKE_MODEL_SERVER, HOST
from tests.harness.ports import free_ports
from tests.multi_model import aws
from tests.multi_model.aws import KEYS, PAGE, REGION, Service
from tests.multi_model.case import MultiModelCase

BUCKET = "handlers"
# It answers with the files of its folder.
SCRIPT = b"""
import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATHS = [path for path in HERE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
FILES = {str(path.relative_to(HERE)): path.read_bytes().decode("latin-1") for path in PATHS}


def handler(data, context):
    return json.dumps({"name": HERE.name, "files": FILES}), "application/json"
"""
ONLY_SCRIPT = {"inference.py": SCRIPT}
ENVIRONMENT_KEYS = {"AWS_ACCESS_KEY_ID": "AKIDLASTING", "AWS_SECRET_ACCESS_KEY": KEYS["AKIDLASTING"][0]}
TASK_KEYS = {"AWS_ACCESS_KEY_ID": "ASIATASK", "AWS_SECRET_ACCESS_KEY": KEYS["ASIATASK"][0]}


def nobody():
    """An address where nothing listens."""
    return f"http://{HOST}:{free_ports()}"


class UniversalCase(MultiModelCase):
    @classmethod
    def setUpClass(cls):
        cls.gate = aws.Gate()
        cls.guarded = cls.service(cls.gate)
        cls.store = cls.gate.store
        cls.store.create_bucket(BUCKET, REGION)
        cls.numbers = itertools.count()
        cls.models = cls.folder()
        cls.empty_model(cls.models / "m" / "model", "1")

    @classmethod
    def service(cls, application):
        service = Service(application)
        cls.clean_up(service.stop)
        return service

    def put(self, files, others=None):
        """Puts files below a new prefix, and objects whose keys begin with it; the prefix, without a slash."""
        prefix = f"team/{next(self.numbers)}"
        objects = {f"/{path}": content for path, content in files.items()} | (others or {})
        for key, content in objects.items():
            self.store.put_object(BUCKET, prefix + key, content)
        return prefix

    def serve(self, prefix, bucket=BUCKET, keys=ENVIRONMENT_KEYS, **env):
        """A server that downloads its handler through the gate, and its folder for temporary files."""
        temporary = self.folder()
        settings = {
            "TMPDIR": str(temporary),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": nobody(),
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": self.guarded.address,
            "SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET": bucket,
            "SAGEMAKER_MULTI_MODEL_UNIVERSAL_PREFIX": prefix,
            **keys,
            **env,
        }
        return self.start(self.models, models=1, model_server=FAKE_MODEL_SERVER, env=settings), temporary

    def check_download(self, prefix, files, **options):
        """The handler finds exactly these files in its folder `code`, and nothing is left behind."""
        server, temporary = self.serve(prefix, **options)
        answer = self.load(server.wait_ready(), "m", self.models / "m" / "model")
        self.assertEqual(answer.status, 200, answer.text)
        expected = {path: content.decode("latin-1") for path, content in files.items()}
        self.check_json(self.invoke_model(server, "m", "{}"), {"name": "code", "files": expected})
        self.check_stops(server)
        self.assertEqual(list(temporary.iterdir()), [])


class Download(UniversalCase):
    def test_prefixes_with_and_without_slash_and_code(self):
        files = ONLY_SCRIPT | {"lib/inner/__init__.py": b"", "lib/inner/deep/module.py": b"DEEP = True\n"}
        for folder, inner in (("", ""), ("code/", ""), ("a/b c/", "/a/b c")):
            prefix = self.put({folder + path: content for path, content in files.items()})
            for end in ("", "/"):
                with self.subTest(folder, end=end):
                    self.check_download(prefix + inner + end, files)

    def test_a_whole_bucket(self):
        self.store.create_bucket("whole", REGION)
        files = {"inference.py": SCRIPT, "lib/x.py": b"X = 1\n"}
        for key, content in files.items():
            self.store.put_object("whole", key, content)
        self.check_download("", files, bucket="whole")

    def test_several_pages(self):
        files = {f"lib/package/m{number:02}.py": f"N = {number}\n".encode() for number in range(3 * PAGE)}
        before = len(self.guarded.paths)
        self.check_download(self.put(files | ONLY_SCRIPT), files | ONLY_SCRIPT)
        pages = [path for path in self.guarded.paths[before:] if "list-type=2" in path]
        self.assertEqual(len(pages), 4)
        self.assertEqual(len([path for path in pages if "continuation-token=" in path]), 3)

    def test_unusual_keys_and_sizes(self):
        names = ("a b", "a+b", "100%", "%41", "a&b=c", "ä/模型", "q?x#y", 'it\'s "so"', "a:b@c", "~a_b-c.d", "<x>")
        files = {f"data/{name}": name.encode() for name in names}
        files |= {"weights.bin": bytes(range(256)) * 50_000, "empty": b""} | ONLY_SCRIPT
        self.check_download(self.put(files), files)

    def test_neighbours_and_objects_that_stand_for_folders_are_left_out(self):
        other = b"raise SystemExit"
        others = {"/": b"", "/lib/": b"", "-old/inference.py": other, "inference.py": other, "2/x.py": b""}
        prefix = self.put(ONLY_SCRIPT, others)
        self.check_download(prefix, ONLY_SCRIPT)
        self.check_download(f"{prefix}/", ONLY_SCRIPT)

    def test_another_program(self):
        files = {"main.py": SCRIPT}
        self.check_download(self.put(files), files, SAGEMAKER_PROGRAM="main.py")

    def test_a_store_that_is_busy_for_a_moment(self):
        prefix = self.put(ONLY_SCRIPT)
        self.gate.busy = 3
        self.check_download(prefix, ONLY_SCRIPT)
        self.assertEqual(self.gate.busy, 0)


class Credentials(UniversalCase):
    """The gate computes the signature of each request again."""

    def check_visitor(self, key, **options):
        self.gate.visitors.clear()
        self.check_download(self.put(ONLY_SCRIPT), ONLY_SCRIPT, **options)
        self.assertEqual(self.gate.visitors, {key})

    def test_keys_of_the_environment(self):
        self.check_visitor("AKIDLASTING")
        token = {"AWS_SESSION_TOKEN": KEYS["ASIATASK"][1]}
        self.check_visitor("ASIATASK", keys=TASK_KEYS | token)

    def test_the_container_credentials_endpoint(self):
        address = self.service(aws.task_credentials).address + aws.CREDENTIALS_PATH
        endpoint = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": address}
        file = self.folder() / "token"
        file.write_text(f"{aws.TASK_TOKEN}\n")
        token, token_file = "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
        for title, key, keys in (
            ("token in the environment", "ASIATASK", {token: aws.TASK_TOKEN}),
            ("token in a file", "ASIATASK", {token_file: str(file)}),
            ("both: the file has the newer one", "ASIATASK", {token: "old", token_file: str(file)}),
            ("keys come first", "AKIDLASTING", ENVIRONMENT_KEYS),
        ):
            with self.subTest(title):
                self.check_visitor(key, keys=endpoint | keys)

    def test_the_instance_metadata_service(self):
        service = self.service(aws.metadata("the-role"))
        self.check_visitor("ASIAROLE", keys={}, AWS_EC2_METADATA_SERVICE_ENDPOINT=service.address)
        self.assertEqual(service.paths, ["/latest/api/token", aws.ROLES, f"{aws.ROLES}the-role"])

    def test_names_of_less_rank(self):
        endpoint = {"AWS_ENDPOINT_URL_S3": "", "AWS_ENDPOINT_URL": self.guarded.address}
        self.check_visitor("AKIDLASTING", AWS_REGION="", AWS_DEFAULT_REGION=REGION, **endpoint)


class Refusals(UniversalCase):
    """Starts that fail: exit code 1, and one message that says it all."""

    def refused(self, *parts, prefix=None, **options):
        prefix = prefix or self.put(ONLY_SCRIPT)
        server, temporary = self.serve(prefix, **options)
        messages = self.check_refused(server)
        # The message is the last line, too.
        self.assertEqual(server.log().splitlines()[-1:], messages)
        for part in (f"s3://{options.get('bucket', BUCKET)}/{prefix}", *parts):
            self.assertIn(part, messages[0])
        for secret in ("X-Amz-", *(secret for secret, _ in KEYS.values())):
            self.assertNotIn(secret, server.log())
        self.assertEqual(list(temporary.iterdir()), [])

    def test_credentials_that_the_store_refuses(self):
        for code, change in (
            ("InvalidAccessKeyId", {"AWS_ACCESS_KEY_ID": "AKIDNOBODY"}),
            ("SignatureDoesNotMatch", {"AWS_SECRET_ACCESS_KEY": "another"}),
            ("InvalidToken", TASK_KEYS),
            ("AuthorizationQueryParametersError", {"AWS_REGION": "us-west-2"}),
        ):
            with self.subTest(code):
                self.refused("status 403", code, **change)

    def test_no_credentials(self):
        metadata, container = "AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_CONTAINER_CREDENTIALS_FULL_URI"
        silent, without_role = nobody(), self.service(aws.metadata(None)).address
        closed = self.service(aws.task_credentials).address + aws.CREDENTIALS_PATH
        no_file = {container: nobody(), "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/nowhere/token"}
        for title, env, parts in (
            ("none at all", {metadata: silent}, ("AWS_ACCESS_KEY_ID", silent)),
            ("an instance without a role", {metadata: without_role}, (without_role, "status 404")),
            ("a container without the token", {container: closed}, (closed, "status 401")),
            ("no token file", no_file, ("/nowhere/token",)),
        ):
            with self.subTest(title):
                self.refused("no credentials", *parts, keys={}, **env)

    def test_stores_that_do_not_answer_as_one(self):
        silent, page = nobody(), self.service(Response("<html>welcome</html>")).address
        # S3's answer to a request in the wrong region says nothing about the right one.
        moved = self.service(aws.error(301, "PermanentRedirect")).address
        for address, *parts in (
            (silent, "cannot be listed", silent),
            (page, "its response cannot be read"),
            (moved, "status 301", "PermanentRedirect"),
            ("nowhere", "nowhere"),
        ):
            with self.subTest(parts):
                self.refused(*parts, AWS_ENDPOINT_URL_S3=address)

    def test_a_store_that_stays_busy(self):
        self.gate.busy = 1000
        self.addCleanup(setattr, self.gate, "busy", 0)
        self.refused("cannot be listed", "status 503", "SlowDown")

    def test_objects_that_are_missing_or_may_not_be_read(self):
        self.refused("status 404", "NoSuchBucket", bucket="nobodys")
        self.refused("has no inference.py", "files downloaded: 0", prefix="nowhere/")
        self.refused("has no inference.py", "files downloaded: 1", prefix=self.put({"inference.txt": SCRIPT}))

    def test_objects_that_cannot_be_downloaded(self):
        for key, *parts in (
            ("/../../escaped.py", "leads out of the folder"),
            ("/lib/../../../../escaped.py", "leads out of the folder"),
            ("/..", "leads out of the folder"),
            (f"/lib{aws.FORBIDDEN}", "status 403", "AccessDenied"),
            # A file of this name is there.
            ("/inference.py/x.py", "cannot be downloaded"),
        ):
            with self.subTest(key):
                prefix = self.put(ONLY_SCRIPT, {key: b"print('escaped')"})
                self.refused(prefix + key, *parts, prefix=prefix)
