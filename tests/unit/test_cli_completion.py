"""What a shell's Tab key gets, by the protocol that its completion script speaks."""

import threading
from pathlib import Path

import httpx
import pytest

from sfumato.cli import completion, main
from tests.fake_service import FakeService, job_json

QUEUED, DONE = "0190b0f0-0000-7000-8000-000000000001", "0190b0f0-0000-7000-8000-000000000002"


@pytest.fixture
def service() -> FakeService:
    service = FakeService(models=("restyle", "sketch"))
    service.jobs[QUEUED] = job_json(QUEUED, prompt="neon")
    service.jobs[DONE] = job_json(DONE, status="succeeded", prompt="a mosaic of\nstones")
    return service


class Tab:
    """Presses Tab behind `line`; the words that are offered."""

    def __init__(self, service: httpx.MockTransport, environment: pytest.MonkeyPatch, out: pytest.CaptureFixture[str]):
        self._service, self._environment, self._out = service, environment, out

    def __call__(self, line: str, shell: str = "bash") -> list[str]:
        words = line.split(" ")
        asked = {
            "_SFUMATO_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": "\n".join(words),
            "COMP_CWORD": str(len(words) - 1),
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        with self._environment.context() as environment:
            for name, value in asked.items():
                environment.setenv(name, value)
            assert main([], self._service) == 0
        told = self._out.readouterr()
        assert told.err == ""
        return [word for word in told.out.split("\n") if word]


@pytest.fixture
def tab(service: FakeService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tab:
    return Tab(httpx.MockTransport(service), monkeypatch, capsys)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("sfumato mod", ["models"]),
        ("sfumato jobs ", ["list", "export", "purge"]),
        ("sfumato jobs pu", ["purge"]),
        ("sfumato jobs --st", ["--status", "--state"]),
        ("sfumato jobs list --st", ["--status", "--state"]),
        ("sfumato jobs --status ", ["queued", "running", "succeeded", "failed", "canceled"]),
        ("sfumato keys create alice --max-priority n", ["normal"]),
        ("sfumato submit cat.jpg --model ", ["restyle", "sketch"]),
        ("sfumato explain sk", ["sketch"]),
        ("sfumato watch ", [QUEUED, DONE]),
        ("sfumato cancel ", [QUEUED]),
        ("sfumato delete ", [DONE]),
        ("sfumato dead retry ", [DONE]),
    ],
)
def test_what_may_stand_next_is_offered(tab: Tab, line: str, offered: list[str]) -> None:
    assert sorted(tab(line)) == sorted(offered)


def test_shells_that_show_it_get_what_a_word_means(tab: Tab) -> None:
    assert tab("sfumato watch ", "fish") == [
        f"{QUEUED}\tqueued restyle: neon",
        f"{DONE}\tsucceeded restyle: a mosaic of stones",
    ]
    assert f'"{DONE}":"succeeded restyle\\\\: a mosaic of stones"' in "\n".join(tab("sfumato watch ", "zsh"))


def test_models_of_the_list_are_offered_for_removing(tab: Tab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models.toml").write_text("[models.restyle]\n[models.ours]\nbackend = 'simulated'\n")
    assert tab(f"sfumato models remove --data-dir {tmp_path} ") == ["restyle", "ours"]
    (tmp_path / "models.toml").write_bytes(b"\xff")
    monkeypatch.setenv("SFUMATO_DATA_DIR", str(tmp_path))
    assert tab("sfumato models remove ") == []
    assert tab("sfumato worker ") == []


@pytest.mark.parametrize("line", ["sfumato watch ", "sfumato submit --model ", "sfumato watch --url nonsense "])
def test_nothing_is_offered_and_nothing_said_where_no_service_answers(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("away")

    assert Tab(httpx.MockTransport(away), monkeypatch, capsys)(line) == []


def test_a_service_that_never_answers_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    never, waited_for = threading.Event(), []

    def silent(request: httpx.Request) -> httpx.Response:
        waited_for.append(never.wait(20))
        return httpx.Response(200, json={"jobs": []})

    monkeypatch.setattr(completion, "WITHIN_S", 0.1)
    assert Tab(httpx.MockTransport(silent), monkeypatch, capsys)("sfumato watch ") == []
    assert waited_for == []
    never.set()


def test_the_service_of_the_line_is_asked_with_the_key(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[httpx.Request] = []

    def kept(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return service(request)

    monkeypatch.setenv("SFUMATO_API_KEY", "sfu_k")
    assert Tab(httpx.MockTransport(kept), monkeypatch, capsys)("sfumato submit --url http://there:9 --model ")
    assert {(each.url.host, each.url.port, each.headers.get("authorization")) for each in asked} == {
        ("there", 9, "Bearer sfu_k")
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lst"], "'jobs list', 'models list'"),
        (["status"], "Did you mean 'db status'?"),
        (["modles"], "Did you mean 'models'?"),
        (["jobs", "lst"], "Did you mean 'list'?"),
        (["jobs", "purg"], "Did you mean 'purge'?"),
    ],
)
def test_a_mistyped_verb_is_told_with_what_may_be_meant(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    told = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert said in told
    assert "cluster" not in told


def test_a_verb_that_is_near_to_none_is_refused_without_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xyz"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["keys", "create", "a", "--per-day", "5G"], "a whole number in digits, such as 5000000000, not '5G'"),
        (["keys", "create", "a", "--rate", "fast"], "must be a number, such as 2.5, not 'fast'"),
        (["keys", "create", "a", "--weight", "1000"], "must be 100 or less, not 1000"),
        (["jobs", "list", "--limit", "0"], "must be 1 or more, not 0"),
        (["up", "--port", "http"], "must be a whole number in digits, such as 8000, not 'http'"),
        (["doctor", "--data-dir", ""], "is empty; name a folder"),
        (["keys", "list", "--data-dir="], "is empty; name a folder"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    told = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert said in told
    assert "Input should" not in told
