"""Every exit status that docs/cli.md names is given, and no other."""

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from sfumato.cli import jobs, main
from sfumato.process import CAN_NOT_SERVE_STATUS
from tests.fake_service import FakeService, job_json

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
DOCUMENTED = {int(status): when for status, when in re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.MULTILINE)}
GOOD, FAILED = "0190b0f0-0000-7000-8000-000000000001", "0190b0f0-0000-7000-8000-000000000002"

Status = Callable[..., int]


@pytest.fixture
def status() -> Status:
    service = FakeService()
    service.jobs[GOOD] = job_json(GOOD, status="succeeded")
    error = {"type": "urn:sfumato:problem:broken", "title": "broken", "detail": "The picture is broken."}
    service.jobs[FAILED] = job_json(FAILED, status="failed", error=error)
    return lambda *words: main(words, httpx.MockTransport(service))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["jobs"], 0),
        (["watch", GOOD], 0),
        (["get", GOOD], 0),
        # It was asked how the job stands, and that was told; `watch` is asked whether it succeeds.
        (["get", FAILED], 0),
        (["watch", FAILED], 1),
        (["get", FAILED, "--out", "out"], 1),
        (["get", "0190b0f0-0000-7000-8000-0000000000ff"], 1),
        (["delete", "0190b0f0-0000-7000-8000-0000000000ff"], 1),
        (["jobs", "--url", "nonsense"], 1),
        ([], 2),
        (["nosuch"], 2),
        (["get"], 2),
        (["jobs", "--nosuch"], 2),
        (["jobs", "--limit", "x"], 2),
        (["bench", "engine", "--backend", "x"], 2),
    ],
)
def test_a_command_line_gives_its_status(
    status: Status, words: list[str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status(*words) == expected
    assert expected in DOCUMENTED


def test_an_interrupted_command_gives_its_own(status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "client", interrupted)
    assert status("get", GOOD) == 130


def test_no_other_status_is_documented() -> None:
    assert DOCUMENTED.keys() == {0, 1, 2, 130, CAN_NOT_SERVE_STATUS}
