"""Imports boto3; the client is made with the first request."""
import json
import os

import boto3
from botocore.exceptions import ClientError

_client = None


def s3():
    global _client
    if _client is None:
        _client = boto3.client("s3", region_name=os.environ.get("AWS_REGION"))
    return _client


def handler(data, context):
    key = json.loads(data.read())["key"]
    try:
        # Made here, without asking anybody.
        url = s3().generate_presigned_url("get_object", Params={"Bucket": "our-bucket", "Key": key}, ExpiresIn=60)
    except ClientError as error:
        raise ValueError(error.response["Error"]["Message"])
    seen = {"region": s3().meta.region_name, "key": key in url, "same": s3() is s3()}
    return json.dumps(seen), "application/json"
