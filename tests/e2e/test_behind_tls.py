"""docs/how-to/tls.md, done: a real nginx with the page's configuration ends TLS before a real service."""

import re
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from sfumato.cluster import unprivileged
from sfumato.cluster.nginx import find_program
from sfumato.cluster.server import Recipe, free_ports, running
from tests.reader import ROOT, Reader, blocks
from tests.service import Service

pytestmark = pytest.mark.server

PAGE = ROOT / "docs" / "how-to" / "tls.md"
NAME = "pictures.example.com"


@pytest.mark.parametrize("told", [True, False], ids=["told its address", "by the door's headers alone"])
def test_the_page_puts_a_service_behind_a_domain(server_folder: Path, tmp_path: Path, told: bool) -> None:
    make_key, start, check = (block.text for block in blocks(PAGE) if block.language == "sh")
    settings = dict(re.findall(r"^export (\w+)=(\S+)", start, re.MULTILINE))
    address = settings["SFUMATO_PUBLIC_URL"]
    if not told:
        del settings["SFUMATO_PUBLIC_URL"]
    secure, plain = free_ports(2)
    with Service(tmp_path, models=None, environment=settings) as service:
        reader = Reader(tmp_path, service, {})
        reader.type(f". .venv/bin/activate\nSFUMATO_API_KEY=$({make_key.strip()} --data-dir data)")
        # The name leads nowhere and nobody signed the certificate: curl is told of both here, the page needs neither.
        (tmp_path / ".curlrc").write_text(f'insecure\nconnect-to = "{NAME}:443:127.0.0.1:{secure}"\n')
        with running(_nginx(server_folder / "nginx", service.url, secure, plain), server_folder / "nginx.log"):
            accepted, refused = (reader.type(line) for line in check.strip().splitlines())
            metrics = reader.type("curl -s -o told -w '%{http_code}' " + f"https://{NAME}/metrics")
            unsafe = reader.type(f"curl -s -w '%{{redirect_url}}' -o told -H 'Host: {NAME}' 127.0.0.1:{plain}/docs")

    assert address == f"https://{NAME}"
    assert f'"result_url":"https://{NAME}/api/jobs/' in accepted
    assert '"status":401' in refused
    assert metrics == "404"
    assert unsafe == f"https://{NAME}/docs"


def _nginx(home: Path, url: str, secure: int, plain: int) -> Recipe:
    """nginx with the configuration of the page, and with ports, a certificate and folders that there are here."""
    unprivileged.give(home)
    (text,) = (block.text for block in blocks(PAGE) if block.language == "nginx")
    here = {
        "listen 443 ssl": f"listen 127.0.0.1:{secure} ssl",
        "listen 80": f"listen 127.0.0.1:{plain}",
        f"/etc/letsencrypt/live/{NAME}/fullchain.pem": f"{home}/cert.pem",
        f"/etc/letsencrypt/live/{NAME}/privkey.pem": f"{home}/key.pem",
        "http://127.0.0.1:8000": url,
    }
    for there, ours in here.items():
        assert there in text
        text = text.replace(there, ours)
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        f"/CN={NAME}",
        "-out",
        f"{home}/cert.pem",
    ]
    subprocess.run([*made, "-keyout", f"{home}/key.pem"], check=True, capture_output=True)
    (home / "key.pem").chmod(0o644)  # nginx does not run as root here
    config = home / "nginx.conf"
    paths = f"client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;"
    config.write_text(f"daemon off; pid {home}/pid; events {{}} http {{ {paths}\n{text} }}\n")
    program = find_program()
    unprivileged.open_way(program)
    command = [str(program), "-p", str(home), "-c", str(config), "-e", "stderr"]
    return Recipe(
        name="nginx",
        command=unprivileged.command(home, command, orphaned=signal.SIGTERM),
        ready=lambda: _redirects(plain),
        stop_signal=signal.SIGQUIT,
    )


def _redirects(port: int) -> bool:
    """Whether the plain port answers: with the way to the secure one, where nobody by that name listens."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/healthz", method="HEAD")
    try:
        urllib.request.build_opener(_Stay).open(request, timeout=2).close()
    except urllib.error.HTTPError as answer:
        return answer.code == 301
    except OSError:
        return False
    return False


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None
