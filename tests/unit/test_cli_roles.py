"""The verbs of who runs the service hand their options to the roles, and their status back."""

import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import sfumato
from sfumato.cli import main
from sfumato.config import Settings


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, function: str, answer: int | str = 0) -> list[Any]:
    """Put a function that only remembers its arguments into `module`, without loading what the real one loads."""
    calls: list[Any] = []

    def remember(*arguments: Any, **named: Any) -> int | str:
        calls.append((*arguments, *named.values()))
        return answer

    fake: Any = ModuleType(module)
    setattr(fake, function, remember)
    monkeypatch.setitem(sys.modules, module, fake)
    package, _, name = module.rpartition(".")
    monkeypatch.setattr(sys.modules.get(package, SimpleNamespace()), name, fake, raising=False)
    return calls


def test_up_turns_options_into_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = stand_in(monkeypatch, "sfumato.supervisor.embedded", "up")
    models = tmp_path / "m.toml"
    models.touch()
    options = ["--port", "0", "--host", "0.0.0.0", "--workers", "2", "--models", str(models)]  # noqa: S104
    assert main(["up", *options, "--data-dir", str(tmp_path)]) == 0
    ((settings,),) = calls
    assert (settings.port, settings.host, settings.workers) == (0, "0.0.0.0", 2)  # noqa: S104
    assert (settings.models, settings.data_dir) == (models, tmp_path)


def test_without_options_the_environment_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch, "sfumato.supervisor.embedded", "up")
    monkeypatch.setenv("SFUMATO_PORT", "8123")
    assert main(["up"]) == 0
    assert calls[0][0].port == 8123


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = stand_in(monkeypatch, "sfumato.supervisor.embedded", "up")
    monkeypatch.setenv("SFUMATO_BEAT_S", "often")
    assert main(["up"]) == 1
    assert "SFUMATO_BEAT_S" in capsys.readouterr().err
    assert calls == []


@pytest.mark.parametrize("words", [["--port", "99999"], ["--workers", "-1"], ["--models", "none.toml"]])
def test_a_wrong_option_is_named_as_it_was_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    calls = stand_in(monkeypatch, "sfumato.supervisor.embedded", "up")
    assert main(["up", *words]) == 2
    told = capsys.readouterr().err
    assert words[0] in told
    assert "SFUMATO" not in told
    assert calls == []


@pytest.mark.parametrize(
    ("module", "words", "rest"),
    [
        ("sfumato.gateway.app", ["gateway", "--fd", "7"], (7,)),
        ("sfumato.gateway.app", ["gateway"], (None,)),
        ("sfumato.dispatcher.dispatcher", ["dispatcher"], ()),
        ("sfumato.worker.worker", ["worker", "restyle"], ("restyle",)),
        ("sfumato.recorder.recorder", ["recorder"], ()),
    ],
)
def test_a_role_is_run_with_its_settings_and_gives_the_status(
    monkeypatch: pytest.MonkeyPatch, module: str, words: list[str], rest: tuple[Any, ...]
) -> None:
    calls = stand_in(monkeypatch, module, "serve", answer=3)
    assert main(words) == 3
    (((settings, *others)),) = calls
    assert isinstance(settings, Settings)
    assert tuple(others) == rest


@pytest.mark.parametrize(
    ("module", "words", "given"),
    [
        ("sfumato.bench.overhead", ["overhead"], (None, False)),
        ("sfumato.bench.overhead", ["overhead", "--cluster"], (None, True)),
        ("sfumato.bench.accept", ["accept", "--json", "rows.json"], (Path("rows.json"),)),
        ("sfumato.bench.dispatch", ["dispatch"], (None,)),
        ("sfumato.bench.engine", ["engine"], ("simulated", None)),
        ("sfumato.bench.engine", ["engine", "--backend", "onnx", "--json", "rows.json"], ("onnx", Path("rows.json"))),
    ],
)
def test_a_bench_is_run_and_its_table_printed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: str,
    words: list[str],
    given: tuple[Any, ...],
) -> None:
    calls = stand_in(monkeypatch, module, "run", answer="the table")
    assert main(["bench", *words]) == 0
    assert calls == [given]
    assert "the table" in capsys.readouterr().out


def test_version_is_one_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sfumato {sfumato.__version__}\n"
    assert sfumato.__version__ == version("sfumato")
