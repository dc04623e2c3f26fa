"""Keys as who runs a service meets them: the commands of the how-to pages, a service not opened by mistake."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.service import Answer, Service, answered, picture_request, sfumato
from tests.support import poll

DOCS = Path(__file__).parents[2] / "docs" / "how-to"


def test_up_refuses_to_be_reached_by_others_without_a_key(tmp_path: Path) -> None:
    anywhere = ["up", "--host", "0.0.0.0", "--port", "0"]  # noqa: S104 - it must not
    refused = sfumato(tmp_path, *anywhere)
    assert refused.returncode == 1
    assert "sfumato keys create OWNER" in refused.stderr
    assert "SFUMATO_AUTH=open" in refused.stderr
    assert "listening" not in refused.stderr.lower()

    made = sfumato(tmp_path, "keys", "create", "alice")
    sfumato(tmp_path, "keys", "revoke", made.stdout.split("_")[1])
    assert sfumato(tmp_path, *anywhere).returncode == 1


def test_a_service_that_others_reach_needs_a_key_and_takes_one(tmp_path: Path, picture: bytes) -> None:
    service = Service(tmp_path, environment={"SFUMATO_HOST": "0.0.0.0"})  # noqa: S104 - for a moment
    made = sfumato(service.data_dir, "keys", "create", "alice")
    assert f"No service has run in {service.data_dir} yet" in made.stderr
    assert "No service" not in sfumato(service.data_dir, "keys", "create", "bob").stderr
    key = made.stdout.strip()
    with service:
        request = picture_request(service.url, picture, model_name="quick", prompt="x")
        assert answered(request).status == 401
        request.add_header("Authorization", f"Bearer {key}")
        accepted = answered(request)
        assert accepted.status == 202, accepted.body
        link = json.loads(accepted.body)["result_url"]
        poll(lambda: service.get(link)[0] == 200, within_s=30)
    assert key not in service.log.read_text()
    for file in service.data_dir.rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes(), file


def test_the_first_key_closes_a_running_service_and_a_revoked_one_stops_within_30_s(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        assert service.get("/api/jobs")[0] == 200
        key = sfumato(service.data_dir, "keys", "create", "alice").stdout.strip()

        def status(key: str = "") -> int:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return answered(urllib.request.Request(f"{service.url}/api/jobs", headers=headers)).status

        assert poll(lambda: status(key) == 200 and status() == 401, within_s=30)
        assert sfumato(service.data_dir, "keys", "revoke", key.split("_")[1]).returncode == 0
        assert poll(lambda: status(key) == 401, within_s=30)


def test_quotas_count_the_jobs_of_a_real_service(tmp_path: Path, picture: bytes) -> None:
    prepared = Service(tmp_path, models='[models.quick]\nbackend = "simulated"\npath = "quick"\n')
    prepared.simulate("quick", {"fixed_s": 0.1, "row_s": 0.0})
    with prepared as service:
        one_job = ["--in-flight", "1", "--per-day", "1000000000"]
        key = sfumato(service.data_dir, "keys", "create", "alice", *one_job).stdout.strip()

        def submit(**query: str) -> Answer:
            request = picture_request(service.url, picture, model_name="quick", prompt="x", **query)
            request.add_header("Authorization", f"Bearer {key}")
            return answered(request)

        slow = {"num_inference_steps": "50", "strength": "1"}
        assert submit(**slow).status == 202
        refused = submit()
        assert refused.status == 429
        assert refused.headers["RateLimit-Policy"] == '"jobs-in-flight";q=1'
        assert poll(lambda: submit().status == 202, within_s=30)  # when the first one has ended

        spent = sfumato(service.data_dir, "keys", "create", "alice", "--per-day", "1").stdout.strip()
        request = picture_request(service.url, picture, model_name="quick", prompt="x")
        request.add_header("Authorization", f"Bearer {spent}")
        refused = answered(request)
        assert refused.status == 429
        assert refused.headers["RateLimit"].startswith('"pixel-steps";r=0;t=')


@pytest.fixture
def picture() -> bytes:
    from tests.sample_pictures import picture

    return picture()


@pytest.mark.parametrize("page", ["keys.md", "quotas.md"])
def test_the_commands_of_the_page_work(tmp_path: Path, page: str) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    with Service(tmp_path) as service:
        bin_dir = tmp_path / "bin"
        bin_dir.mkdir()
        command = bin_dir / "sfumato"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sfumato "$@"\n')
        command.chmod(0o755)
        shell = "set -e\n" + "\n".join(blocks).replace("PREFIX", "$(sfumato keys list | head -n 1 | cut -d' ' -f1)")
        environment = dict(os.environ) | {  # noqa: TID251 - the child's
            "PATH": f"{bin_dir}:{os.environ['PATH']}",  # noqa: TID251 - the child's
            "SFUMATO_DATA_DIR": str(service.data_dir),
            "SFUMATO_URL": service.url,
        }
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    if page == "keys.md":
        assert '"jobs":[]' in done.stdout
        assert "revoked" in done.stdout
