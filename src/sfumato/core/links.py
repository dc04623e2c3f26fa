"""Access links: tokens that say what they open and until when, so that no look-up is needed to check one.

A token is `<expiry, Unix seconds>.<base64url of HMAC-SHA256>`. The first secret signs, all verify, so a secret is
rotated by putting the new one in front.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Literal

from sfumato.core.shown import JobLinks

__all__ = ["Links"]

Subject = Literal["job", "upload"]


class Links:
    """Signs and checks tokens. `now` and expiries are Unix seconds."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets or not all(secrets):
            raise ValueError("Links needs at least one secret, none of them empty.")
        self._secrets = tuple(secrets)

    def token(self, subject: Subject, identity: str, expires_at: float) -> str:
        """A token that opens `subject` `identity` until `expires_at`."""
        expiry = str(int(expires_at))
        return f"{expiry}.{_sign(self._secrets[0], subject, identity, expiry)}"

    def of_job(self, base_url: str, job_id: str, expires_at: float) -> JobLinks:
        """The job's addresses under `base_url`, good until `expires_at`."""
        token = self.token("job", job_id, expires_at)
        job = f"{base_url}/api/jobs/{job_id}"
        return JobLinks(f"{job}/result?token={token}", f"{job}?token={token}", f"{job}/events?token={token}")

    def opens(self, token: str, subject: Subject, identity: str, now: float) -> bool:
        """Whether `token` is ours, for this thing, and still good. Takes the same time for any wrong signature."""
        expiry, _, signature = token.partition(".")
        if not (expiry.isascii() and expiry.isdigit() and len(expiry) <= 12) or not signature.isascii():
            return False
        # Every secret is tried, so that the time says nothing about which one signed.
        good = [hmac.compare_digest(_sign(key, subject, identity, expiry), signature) for key in self._secrets]
        return any(good) and now < int(expiry)

    def marked(self, owner: str, identity: str) -> str:
        """`identity`, a random UUID, with its last part replaced by what binds it to `owner`."""
        head = identity.rpartition("-")[0]
        return f"{head}-{_mark(self._secrets[0], owner, head)}"

    def is_marked(self, owner: str, identity: str) -> bool:
        """Whether `marked` made this for `owner`."""
        head, _, mark = identity.rpartition("-")
        return any(hmac.compare_digest(_mark(key, owner, head), mark) for key in self._secrets)


def _sign(secret: bytes, subject: str, identity: str, expiry: str) -> str:
    mac = hmac.digest(secret, f"{subject}:{identity}:{expiry}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def _mark(secret: bytes, owner: str, head: str) -> str:
    return hmac.digest(secret, f"owner:{len(owner)}:{owner}:{head}".encode(), hashlib.sha256)[:6].hex()
