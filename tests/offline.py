"""Run as a program of its own, in a network namespace of its own: the installed command makes a picture from nothing.

`python offline.py COMMAND PICTURE`, in an empty folder. It knows no package of ours and no tests; what it found out is
one JSON object on standard output.
"""

import fcntl
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
READY_WITHIN_S = 60.0
ASK_EVERY_S = 0.1


def raise_loopback() -> None:
    """Bring up `lo`, which is down in a new namespace, as `ip link set lo up` does."""
    with socket.socket() as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def reaches_outside() -> bool:
    """Whether there is a way to any other machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return False
    return True


def address(log: Path, service: "subprocess.Popen[bytes]") -> str:
    """Where the service says that it is ready."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and service.poll() is None:
        if found := re.search(r"ready on (http://[\d.:]+)", log.read_text()):
            return found[1]
        time.sleep(ASK_EVERY_S)  # noqa: TID251 - nothing of the tests' own can be imported here
    raise SystemExit(f"`sfumato up` did not get ready:\n{log.read_text()}")


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def page(url: str) -> str:
    return fetched(url).decode()


def main(command: str, picture: str) -> None:
    raise_loopback()
    log = Path("up.log")
    with log.open("wb") as file:
        service = subprocess.Popen([command, "up", "--port", "0"], stdout=file, stderr=file)
    try:
        url = address(log, service)
        docs, front = page(f"{url}/docs"), page(f"{url}/")
        named = re.findall(r'(?:src|href)="((?!https?:|data:|#)[^"]+)"', docs + front)
        assets = sorted({urllib.parse.urljoin(f"{url}/", path) for path in named})
        asked = ["--url", url, "--model", "restyle", "--prompt", "mosaic", "--out", "out", "--json"]
        sent = subprocess.run([command, "submit", picture, *asked], capture_output=True, text=True, check=False)
        told = {
            "outside": reaches_outside(),
            "assets": {asset: len(fetched(asset)) for asset in assets},
            "elsewhere": re.findall(r'src="(https?:[^"]+)"|<link[^>]+href="(https?:[^"]+)"', docs + front),
            "version": json.loads(page(f"{url}/api/status"))["version"],
            "openapi": json.loads(page(f"{url}/openapi.json"))["info"]["version"],
            "submit": {"status": sent.returncode, "out": sent.stdout, "err": sent.stderr},
        }
    finally:
        service.send_signal(signal.SIGTERM)
        told_status = service.wait(30)
    sys.stdout.write(json.dumps(told | {"stopped": told_status, "log": log.read_text()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
