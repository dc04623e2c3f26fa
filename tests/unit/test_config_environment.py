"""A variable that looks like a setting and is none is told, with the one that may be meant, once."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfumato.config import BadSettings, child_environment, load_settings, unknown_variables
from sfumato.config.environment import OF_THE_COMMAND
from sfumato.process import begin_logging

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SFUMATO_PROT", "SFUMATO_PORT"),
        ("SFUMATO_DATABSE_URL", "SFUMATO_DATABASE_URL"),
        ("SFUMATO_WORKER", "SFUMATO_WORKERS"),
        ("SFUMATO_S3_ACCESS_KEY", "SFUMATO_S3_ACCESS_KEY_ID"),
        ("SFUMATO_APIKEY", "SFUMATO_API_KEY"),
    ],
)
def test_a_mistyped_setting_is_told_with_the_nearest(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    monkeypatch.setenv(name, "secret")
    (told,) = unknown_variables().values()
    assert told == f"{name} is no setting and is ignored; is {meant} meant?"


def test_one_that_is_near_to_none_is_told_where_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_QQQ", "1")
    (told,) = unknown_variables().values()
    assert told == "SFUMATO_QQQ is no setting and is ignored; docs/settings.md lists what there is."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SFUMATO_PORT", "9000"),
        ("SFUMATO_API_KEY", "k"),
        ("SFUMATO_URL", "http://127.0.0.1"),
        ("SFUMATO_SERVICE_HOST", "10.0.0.1"),
        ("SFUMATO_SERVICE_PORT_HTTP", "80"),
        ("SFUMATO_GATEWAY_PORT", "tcp://10.0.0.1:80"),
        ("SFUMATO_GATEWAY_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("OTHER_SFUMATO_PROT", "1"),
    ],
)
def test_what_is_read_or_none_of_ours_is_not_told(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert unknown_variables() == {}


def test_every_variable_that_the_compose_files_and_pages_name_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [*ROOT.glob("docker-compose*.yaml"), *(ROOT / "docs").rglob("*.md"), ROOT / "deploy" / "make_env.py"]
    named = {name for file in files for name in re.findall(r"\bSFUMATO_[A-Z0-9_]*[A-Z0-9]\b(?!_)", file.read_text())}
    assert named >= OF_THE_COMMAND
    for name in named:
        monkeypatch.setenv(name, "")
    assert unknown_variables() == {}


def test_a_process_warns_of_it_at_its_start_and_its_children_do_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SFUMATO_PROT", "9000")
    begin_logging("up", load_settings())
    assert "SFUMATO_PROT is no setting and is ignored; is SFUMATO_PORT meant?" in capsys.readouterr().err
    assert "SFUMATO_PROT" not in child_environment(load_settings())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SFUMATO_PORT", "abc", "SFUMATO_PORT: must be a whole number in digits, such as 8000, not 'abc'."),
        ("SFUMATO_PORT", "", "SFUMATO_PORT: must be a whole number in digits, such as 8000, not ''."),
        ("SFUMATO_PORT", "70000", "SFUMATO_PORT: must be 65535 or less, not 70000."),
        ("SFUMATO_WORKERS", "1.5", "SFUMATO_WORKERS: must be a whole number in digits, not '1.5'."),
        ("SFUMATO_BEAT_S", "often", "SFUMATO_BEAT_S: must be a number, such as 2.0, not 'often'."),
        ("SFUMATO_DRAIN_S", "nan", "SFUMATO_DRAIN_S: must be more than 0, not nan."),
        ("SFUMATO_LOG_LEVEL", "loud", "SFUMATO_LOG_LEVEL: must be 'debug', 'info', 'warning' or 'error'."),
        ("SFUMATO_PUBLIC_URL", "here", "SFUMATO_PUBLIC_URL: must begin with http:// or https://."),
        ("SFUMATO_DATA_DIR", "", "SFUMATO_DATA_DIR: is empty; name a folder (`.` is the one you are in), or leave it"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings) as refused:
        load_settings()
    assert refused.value.detail.startswith(said)
