import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sfumato.cli import main
from sfumato.cli.doctor import place
from sfumato.config import load_settings
from sfumato.supervisor.place import LEAST_FREE_BYTES, CannotStart, taken


class Healthy(BaseHTTPRequestHandler):
    """Answers as the gateway's /healthz does."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()
        self.wfile.write(b'{"status":"ok"}')

    def log_message(self, *_: object) -> None:
        """Not onto the tests' standard error."""


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


def test_servers_that_the_settings_name_and_that_do_not_answer_are_told(
    tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = {
        "KAFKA_SERVERS": f"127.0.0.1:{port}",
        "S3_BUCKET": "b",
        "S3_ENDPOINT": f"http://127.0.0.1:{port}",
        "S3_ACCESS_KEY_ID": "k",
        "S3_SECRET_ACCESS_KEY": "s",
        "DATABASE_URL": f"postgresql://a:secret@127.0.0.1:{port}/x",
    }
    for name, value in nobody.items():
        monkeypatch.setenv(f"SFUMATO_{name}", value)

    assert examine(tmp_path, port) == 1

    told = capsys.readouterr().out
    for server in (f"✗ Kafka at 127.0.0.1:{port}", "✗ bucket b at", "✗ PostgreSQL"):
        assert server in told
    assert "secret" not in told


def test_a_port_in_use_is_told(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert examine(tmp_path, port) == 1
    assert f"✗ port {port}" in capsys.readouterr().out


def test_a_port_on_which_a_service_answers_is_as_it_should_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert examine(tmp_path, server.server_port) == 0
    assert f"✓ port {server.server_port} on 127.0.0.1: a service answers there" in capsys.readouterr().out


def test_a_service_that_listens_everywhere_is_asked_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_HOST", "0.0.0.0")  # noqa: S104
    monkeypatch.setenv("SFUMATO_AUTH", "open")
    with HTTPServer(("0.0.0.0", 0), Healthy) as server:  # noqa: S104
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert examine(tmp_path, server.server_port) == 0
    assert f"✓ port {server.server_port} on 0.0.0.0: a service answers there" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no folder here that nobody can write into")
def test_a_data_folder_that_cannot_be_made_is_told(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert examine(Path("/proc/foo"), port) == 1
    assert "✗ data folder /proc/foo: /proc can't be written" in capsys.readouterr().out


def test_a_data_folder_that_is_a_file_is_told(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert examine(tmp_path / "file", port) == 1
    assert "--data-dir" in capsys.readouterr().out


def test_a_broken_list_of_models_is_told(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models.toml").write_text("[models.broken")
    assert examine(tmp_path, port) == 1
    assert "✗ models: " in capsys.readouterr().out


def test_a_model_whose_folder_is_gone_is_told_beside_the_others(
    tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models.toml").write_text("[models.restyle]\n[models.lost]\npath = 'nowhere'\n")
    assert examine(tmp_path, port) == 1
    told = capsys.readouterr()
    assert "✓ models restyle\n" in told.out
    assert "✗ model lost: path" in told.out
    assert told.err == ""


@pytest.mark.parametrize(
    ("free", "said", "status"),
    [
        (place.ENOUGH_BYTES, "✓ 1.0 GiB of disk free\n", 0),
        (place.ENOUGH_BYTES - 1, "! 1023 MiB of disk free: free some", 0),
        (LEAST_FREE_BYTES, "! 64 MiB of disk free: free some", 0),
        (LEAST_FREE_BYTES - 1, "✗ 63 MiB of disk free: a service starts from 64 MiB; free some", 1),
    ],
)
def test_a_disk_that_is_full_for_a_service_is_told_and_one_that_soon_will_be(
    tmp_path: Path,
    port: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    said: str,
    status: int,
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert examine(tmp_path, port) == status
    assert said in capsys.readouterr().out
    if status:
        with pytest.raises(CannotStart, match="64 are needed"), taken(load_settings(data_dir=tmp_path)):
            pass
