"""Single signed requests to S3, for what obstore has no call for: making a bucket, setting its lifecycle rules.

The signature is AWS's Signature Version 4; the tests hold it against the examples in AWS's documentation.
"""

import hashlib
import hmac
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlsplit

from sfumato.core.errors import TransientError
from sfumato.storage.s3_place import S3Place

__all__ = ["Answer", "ask", "signed"]

ALGORITHM: Final = "AWS4-HMAC-SHA256"
ANSWER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the store said, whatever its status."""

    status: int
    body: bytes

    @property
    def code(self) -> str:
        """S3's word for what is wrong, such as NoSuchBucket; "" when it says none."""
        return self.body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode("utf-8", "replace")


def ask(
    place: S3Place,
    method: str,
    key: str = "",
    *,
    query: Mapping[str, str] | None = None,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request about the bucket, or about the object `key` in it, and read the answer.

    Raises:
        TransientError: there was no answer.
    """
    pairs = sorted((query or {}).items())
    asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    url = f"{place.address}/{place.bucket}" + (f"/{quote(key)}" if key else "") + (f"?{asked}" if asked else "")
    sent = signed(place, method, url, body, headers or {}, datetime.now(UTC))
    request = urllib.request.Request(url, body or None, sent, method=method)  # noqa: S310 - the operator's own address
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310
            return Answer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())
    except OSError as error:
        raise TransientError(
            f"{place.address} does not answer: {error}. See that it runs and can be reached."
        ) from error


def signed(
    place: S3Place, method: str, url: str, body: bytes, headers: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """The headers to send: `headers`, the time, the body's digest and the signature over all of them.

    `url` is percent-encoded already, its query sorted by name; `now` is in UTC.
    """
    parts, at = urlsplit(url), now.strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    sent = {name.lower(): value for name, value in headers.items()} | {"x-amz-content-sha256": digest, "x-amz-date": at}
    named = sorted((sent | {"host": parts.netloc}).items())
    names = ";".join(name for name, _ in named)
    lines = "".join(f"{name}:{value.strip()}\n" for name, value in named)
    canonical = f"{method}\n{parts.path or '/'}\n{parts.query}\n{lines}\n{names}\n{digest}"
    scope = f"{at[:8]}/{place.region}/s3/aws4_request"
    to_sign = f"{ALGORITHM}\n{at}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{place.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"{ALGORITHM} Credential={place.access_key_id}/{scope}"
    return sent | {"authorization": f"{credential},SignedHeaders={names},Signature={signature}"}
