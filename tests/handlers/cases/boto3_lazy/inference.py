"""Imports boto3; the client is made with the first request."""

import functools
import os

import boto3


@functools.lru_cache(maxsize=None)
def s3():
    return boto3.client("s3", region_name=os.environ.get("AWS_REGION"))


def handler(data, context):
    # boto3 makes the address without asking AWS.
    params = {"Bucket": "our-bucket", "Key": data.read().decode()}
    address = s3().generate_presigned_url("get_object", Params=params, ExpiresIn=60)
    return f"{s3().meta.region_name} {address.partition('?')[0]}", "text/plain"
