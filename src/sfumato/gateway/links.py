"""Access links: an HMAC token over what it opens and until when, so that no look-up is needed to check one.

A token is `<expiry, Unix seconds>.<base64url of HMAC-SHA256>`. The first secret signs, all verify, so a secret is
rotated by putting the new one in front.
"""

import base64
import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sfumato.core.errors import SfumatoError

__all__ = ["Links", "NoSecret", "kept_secret"]

Subject = Literal["job", "upload"]


class NoSecret(SfumatoError):
    """The secret that signs links can't be read or made; the message says where."""

    slug = "no-link-secret"
    title = "The secret that signs links can't be used"


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


def kept_secret(file: Path) -> bytes:
    """The secret in `file`, made at the first call and readable by its owner alone; the same for racing processes.

    Raises:
        NoSecret: the file can't be made or read, or is empty.
    """
    try:
        if not file.exists():
            _make(file)
        secret = file.read_bytes().strip()
    except OSError as error:
        raise NoSecret(f"{file}: {error.strerror}. Make its folder writable or set SFUMATO_LINK_SECRETS.") from error
    if not secret:
        raise NoSecret(f"{file} is empty; remove it, or put a secret of 32 random characters into it.")
    return secret


def _make(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".link-secret-")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(secrets.token_hex(32).encode())
            stream.flush()
            os.fsync(stream.fileno())
        # A link is made whole or not at all and never replaces one, so the loser of a race reads the winner's secret.
        os.link(name, file)
    except FileExistsError:
        pass
    finally:
        os.unlink(name)
