"""The real AWS CLI against an account that does not exist: it parses and checks its arguments. A server on loopback
answers what it sends, with as little as the documents' commands need.
"""

import base64
import http.server
import json
import os
import sys
import threading

from awscli.clidriver import create_clidriver

IDENTITY = """<GetCallerIdentityResponse><GetCallerIdentityResult><Account>123456789012</Account>
</GetCallerIdentityResult></GetCallerIdentityResponse>"""
TOKEN = base64.b64encode(b"AWS:secret").decode()
ANSWERS = {
    "DescribeEndpoint": {"EndpointStatus": "InService"},
    "GetAuthorizationToken": {"authorizationData": [{"authorizationToken": TOKEN}]},
}
# An option with a value that only version 2 of the CLI has.
NEWER = "--cli-binary-format"


class Account(http.server.BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        text = "" if self.command == "PUT" else json.dumps(ANSWERS.get(operation, {}))
        if b"Action=GetCallerIdentity" in body:
            text = IDENTITY
        self.send_response(200)
        self.send_header("ETag", '"0"')
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_PUT = answer


def main(arguments):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Account)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
    }
    if NEWER in arguments:
        place = arguments.index(NEWER)
        del arguments[place : place + 2]
    return create_clidriver().main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
