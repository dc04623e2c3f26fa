"""What the object stores started here have in common: an address, credentials of their own, a bucket."""

import secrets

from sfumato.storage.s3_http import ask
from sfumato.storage.s3_place import S3Place

__all__ = ["made", "new_place"]

BUCKET = "sfumato"


def new_place(port: int, bucket: str = BUCKET) -> S3Place:
    """A place on this port of the loopback, with credentials nobody had before."""
    return S3Place(
        bucket=bucket,
        endpoint=f"http://127.0.0.1:{port}",
        access_key_id=f"sfumato{secrets.token_hex(6)}",
        secret_access_key=secrets.token_hex(24),
    )


def made(place: S3Place) -> bool:
    """Whether the bucket is there; it is made when it is not."""
    answer = ask(place, "PUT")
    return answer.status == 200 or answer.code in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")
