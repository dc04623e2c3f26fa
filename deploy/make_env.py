"""Writes .env with passwords nobody had before: `make env`. It never writes over one that is there."""

import base64
import os
import secrets
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["NAMES", "main"]

NAMES: Final = (
    "POSTGRES_PASSWORD",
    "S3_ACCESS_KEY_ID",
    "S3_SECRET_ACCESS_KEY",
    "VALKEY_PASSWORD",
    "GRAFANA_PASSWORD",
    "LINK_SECRETS",
    "WEBHOOK_SECRETS",
    "KAFKA_CLUSTER_ID",
)


def _value(name: str) -> str:
    if name == "KAFKA_CLUSTER_ID":
        # Kafka's own tools take an id that begins with a dash for an option of theirs.
        return next(text for text in _cluster_ids() if not text.startswith("-"))
    if name == "WEBHOOK_SECRETS":
        return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    # Hexadecimal: safe within an address, a shell and a YAML file alike.
    return secrets.token_hex(10 if name.endswith("_ID") else 24)


def _cluster_ids() -> Iterator[str]:
    while True:
        yield base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def main(file: Path) -> int:
    """Make the file, readable by its owner alone; gives the exit status."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        sys.stderr.write(
            f"{file} is there already and is left as it is: the servers keep the passwords they began with.\n"
            "To begin anew, data and all: docker compose down --volumes, then remove it.\n"
        )
        return 1
    with os.fdopen(descriptor, "w") as env:
        env.write("# Passwords of this host's servers, read by docker compose. Keep it as long as their volumes.\n")
        env.writelines(f"{name}={_value(name)}\n" for name in NAMES)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(".env")))
