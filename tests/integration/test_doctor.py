import shutil
import socket
from pathlib import Path

import pytest

from sfumato.cli import doctor, main


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
        return free


def examine(data_dir: Path, port: int) -> int:
    return main(["doctor", "--data-dir", str(data_dir), "--port", str(port)])


def test_a_machine_that_is_ready_is_told_so(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert examine(tmp_path / "data", port) == 0
    told = capsys.readouterr().out
    assert "✗" not in told
    assert "restyle" in told
    assert not (tmp_path / "data").exists()


def test_a_port_in_use_is_told(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert examine(tmp_path, port) == 1
    assert f"✗ port {port}" in capsys.readouterr().out


def test_a_data_folder_that_is_a_file_is_told(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert examine(tmp_path / "file", port) == 1
    assert "--data-dir" in capsys.readouterr().out


def test_a_broken_list_of_models_is_told(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models.toml").write_text("[models.broken")
    assert examine(tmp_path, port) == 1
    assert "✗ models: " in capsys.readouterr().out


def test_a_full_disk_is_told(
    tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=doctor.ENOUGH_BYTES // 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert examine(tmp_path, port) == 1
    assert "✗ 0.5 GiB of disk free" in capsys.readouterr().out
