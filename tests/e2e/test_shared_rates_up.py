"""Two real gateways and a real Valkey: one limit, whichever is asked, and none of it stops when Valkey is killed."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.metrics import value
from tests.service import Service, answered
from tests.support import poll
from tests.valkey import valkey

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]


@contextmanager
def second_gateway(folder: Path, data_dir: Path, environment: dict[str, str]) -> Iterator[str]:
    """One beside those of a service, over the same folder; its address."""
    own = {"SFUMATO_DATA_DIR": str(data_dir), "SFUMATO_PORT": "0"}
    whole = dict(os.environ) | environment | own  # noqa: TID251 - the child's, handed through
    log = folder / "second.log"
    with (
        log.open("wb") as out,
        subprocess.Popen([sys.executable, "-m", "sfumato", "gateway"], env=whole, stderr=out) as process,
    ):
        try:
            yield poll(lambda: _address(log.read_text()), within_s=30)
        finally:
            process.terminate()


def _address(text: str) -> str:
    found = re.search(r"Listening on (http://[\d.:]+)", text)
    return found[1] if found else ""


def new_key(data_dir: Path, rate: float) -> str:
    command = [sys.executable, "-m", "sfumato", "keys", "create", "alice", "--rate", f"{rate:g}"]
    environment = dict(os.environ) | {"SFUMATO_DATA_DIR": str(data_dir)}  # noqa: TID251 - the child's
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def statuses(gateways: list[str], key: str, times: int) -> Counter[int]:
    """What so many requests are answered, in turns by each of the gateways."""

    def ask(turn: int) -> int:
        address = f"{gateways[turn % len(gateways)]}/api/models"
        return answered(urllib.request.Request(address, headers={"Authorization": f"Bearer {key}"})).status

    with ThreadPoolExecutor(8) as threads:
        return Counter(threads.map(ask, range(times)))


def test_gateways_share_a_rate_exactly_and_go_on_without_valkey(tmp_path: Path) -> None:
    with valkey(tmp_path) as server:
        environment = {"SFUMATO_RATES_URL": server.url, "SFUMATO_GATEWAYS": "2"}
        service = Service(tmp_path, environment=environment)
        # A hundred within ten seconds: longer than a busy machine needs to ask two hundred times.
        keys = [new_key(service.data_dir, rate) for rate in (9.9, 50, 9.9)]
        with service, second_gateway(tmp_path, service.data_dir, environment) as other:
            gateways = [service.url, other]
            assert statuses(gateways, keys[0], 200) == {200: 99, 429: 101}

            server.server.kill()
            began = time.monotonic()
            alone = statuses(gateways, keys[1], 100)
            assert alone.keys() <= {200, 429}
            assert 50 <= alone[200] <= 50 + 50 * (time.monotonic() - began)
            assert counted_alone(service.url) > 0

            server.server.start()
            poll(lambda: "together again" in service.log.read_text(), within_s=10)
            poll(lambda: "together again" in (tmp_path / "second.log").read_text(), within_s=10)
            assert statuses(gateways, keys[2], 200) == {200: 99, 429: 101}
        logs = service.log.read_text() + (tmp_path / "second.log").read_text()
        assert logs.count("each gateway counts requests alone") == 2
        assert "not-for-everybody" not in logs


def counted_alone(url: str) -> float:
    return value(answered(urllib.request.Request(f"{url}/metrics")).body.decode(), "sfumato_rates_alone_total") or 0.0
