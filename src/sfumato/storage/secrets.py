"""Secrets that nobody set: made once, kept in the data folder, readable by its owner alone."""

import base64
import os
import secrets
import tempfile
from pathlib import Path

from sfumato.core.errors import SfumatoError
from sfumato.core.webhooks import SECRET_PREFIX

__all__ = ["NoSecret", "kept_secret", "link_secrets", "new_webhook_secret", "webhook_secrets"]


class NoSecret(SfumatoError):
    """A secret that signs links or webhooks can't be read or made; the message says where."""

    slug = "no-link-secret"
    title = "A secret that signs can't be used"


def kept_secret(file: Path, made: str = "") -> bytes:
    """The secret in `file`, made at the first call (`made`, by default a random text); the same for racing processes.

    Raises:
        NoSecret: the file can't be made or read, or is empty.
    """
    try:
        if not file.exists():
            _make(file, made or secrets.token_hex(32))
        secret = file.read_bytes().strip()
    except OSError as error:
        advice = "Make its folder writable, or set SFUMATO_LINK_SECRETS and SFUMATO_WEBHOOK_SECRETS."
        raise NoSecret(f"{file}: {error.strerror}. {advice}") from error
    if not secret:
        raise NoSecret(f"{file} is empty; remove it, or put a secret of 32 random characters into it.")
    return secret


def _make(file: Path, secret: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(secret.encode())
            stream.flush()
            os.fsync(stream.fileno())
        # A link is made whole or not at all and never replaces one, so the loser of a race reads the winner's secret.
        os.link(name, file)
    except FileExistsError:
        pass
    finally:
        os.unlink(name)


def new_webhook_secret() -> str:
    """A secret as Standard Webhooks spells one: 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(os.urandom(32)).decode()


def link_secrets(given: str, folder: Path) -> list[bytes]:
    """The secrets that sign links: those given, comma separated, else the one kept in `folder`. Raises NoSecret."""
    return [part.encode() for part in _parts(given)] or [kept_secret(folder / "link-secret")]


def webhook_secrets(given: str, folder: Path) -> list[str]:
    """The secrets that sign the webhooks of single jobs, found in the same way. Raises NoSecret."""
    return _parts(given) or [kept_secret(folder / "webhook-secret", new_webhook_secret()).decode()]


def _parts(given: str) -> list[str]:
    return [part.strip() for part in given.split(",") if part.strip()]
