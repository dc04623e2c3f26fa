"""Signature Version 4, against the examples in AWS's documentation of the S3 API."""

from datetime import UTC, datetime

import pytest

from sfumato.storage.s3_http import Answer, signed
from sfumato.storage.s3_place import S3Place

AWS = S3Place(
    bucket="examplebucket",
    access_key_id="AKIAIOSFODNN7EXAMPLE",
    secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
)
URL = "https://examplebucket.s3.amazonaws.com"
NOW = datetime(2013, 5, 24, tzinfo=UTC)
WRITTEN = {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "signature"),
    [
        (
            *("GET", "/test.txt", {"Range": "bytes=0-9"}, b""),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            *("PUT", "/test%24file.text", WRITTEN, b"Welcome to Amazon S3."),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            *("GET", "/?lifecycle=", {}, b""),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            *("GET", "/?max-keys=2&prefix=J", {}, b""),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
    ids=["get an object", "put an object", "get the lifecycle", "list objects"],
)
def test_signature_is_that_of_the_documentation(
    method: str, path: str, headers: dict[str, str], body: bytes, signature: str
) -> None:
    sent = signed(AWS, method, URL + path, body, headers, NOW)

    assert sent["authorization"].endswith(f"Signature={signature}")
    assert sent["authorization"].startswith(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders="
    )


def test_secret_is_in_no_header_and_no_text() -> None:
    assert AWS.secret_access_key not in str(signed(AWS, "GET", URL + "/x", b"", {}, NOW))
    assert AWS.secret_access_key not in repr(AWS)


def test_word_for_what_is_wrong_is_found_in_the_answer() -> None:
    assert Answer(404, b"<Error><Code>NoSuchBucket</Code><Message>x</Message></Error>").code == "NoSuchBucket"
    assert Answer(200, b"").code == ""
