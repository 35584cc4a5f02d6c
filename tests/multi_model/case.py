"""A test case with servers in multi-model mode, and what SageMaker sends to them."""

import json

from tests.harness.case import ServerCase
from tests.harness.constants import JSON


class MultiModelCase(ServerCase):
    @classmethod
    def load(cls, server, name, url):
        return server.request("POST", "/models", json.dumps({"model_name": name, "url": str(url)}))

    def invoke_model(self, server, name, body, content_type=JSON, **options):
        return self.invoke(server, body, content_type, path=f"/models/{name}/invoke", **options)
