"""MinIO: one server on one folder. Its project ships no binaries any more, so it comes from whoever has one."""

import gzip
import os
import shutil
import urllib.request
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import sfumato
from sfumato.cluster.s3 import made
from sfumato.cluster.server import Recipe, ServerMissing
from sfumato.config import inherited_environment
from sfumato.storage.s3_place import S3Place

__all__ = ["minio"]

PACKED: Final = Path("shared") / "minio" / "minio.gz"
MISSING: Final = (
    "MinIO is not on this machine. Set MINIO to its binary, put `minio` on the PATH, "
    f"or lay a packed one at {PACKED} in the checkout or beside it."
)


def minio(folder: Path, place: S3Place) -> Recipe:
    """MinIO on the port of `place`, with its bucket and credentials; it keeps everything in `folder`.

    Raises:
        ServerMissing: there is no binary; the message says where one is looked for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{urlsplit(place.endpoint).port}"
    return Recipe(
        "minio",
        (str(_binary(folder)), "server", str(folder / "objects"), "--address", address),
        lambda: _alive(place) and made(place),
        environment={
            "MINIO_ROOT_USER": place.access_key_id,
            "MINIO_ROOT_PASSWORD": place.secret_access_key,
            "MINIO_BROWSER": "off",
        },
    )


def _binary(folder: Path) -> Path:
    named = inherited_environment().get("MINIO", "")
    if found := named or shutil.which("minio"):
        if not os.access(found, os.X_OK):
            raise ServerMissing(f"MINIO is {found}, and no program is there. Correct it, or unset it.")
        return Path(found)
    checkout = Path(sfumato.__file__).parents[2]
    for packed in (checkout / PACKED, checkout.parent / PACKED):
        if packed.is_file():
            return _unpacked(packed, folder / "minio")
    raise ServerMissing(MISSING)


def _unpacked(packed: Path, binary: Path) -> Path:
    if not binary.exists():
        part = binary.with_suffix(".part")
        with gzip.open(packed) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, 1024 * 1024)
        part.chmod(0o755)
        part.replace(binary)  # whole or not there, should this be stopped half way
    return binary


def _alive(place: S3Place) -> bool:
    with urllib.request.urlopen(f"{place.endpoint}/minio/health/live", timeout=1) as answer:  # noqa: S310 - loopback
        return bool(answer.status == 200)
