"""Dead letters from the command line: listed apart from other failures, run again, dropped."""

import json
from pathlib import Path

import pytest

from tests.fake_service import FakeService
from tests.unit.test_cli_jobs import Run, run, service, submit

__all__ = ["run", "service"]


@pytest.fixture
def ended(run: Run, service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Three jobs: a dead letter, one that failed of its picture, one that is queued."""
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"picture")
    submit(run, tmp_path)
    capsys.readouterr()
    dead, broken, queued = service.jobs
    why = {"title": "It", "detail": "3 workers died while they ran this job and nothing else."}
    service.jobs[dead] |= {"status": "failed", "error": {"type": "urn:sfumato:problem:dead-letter", **why}}
    service.jobs[broken] |= {"status": "failed", "error": {"type": "urn:sfumato:problem:bad-picture", "detail": "cut"}}
    return [dead, broken, queued]


def test_list_shows_dead_letters_alone_with_their_reason(
    run: Run, ended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("dead", "list") == 0

    assert capsys.readouterr().out == (
        f"{ended[0]}  restyle  3 workers died while they ran this job and nothing else.\n"
    )


def test_list_can_show_all_that_failed_for_machines(
    run: Run, ended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("dead", "list", "--failed", "--json") == 0

    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [job["id"] for job in listed] == ended[:2]


def test_retry_makes_a_new_job_of_each_and_goes_on_after_one_that_has_not_ended(
    run: Run, service: FakeService, ended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("dead", "retry", ended[2], ended[0]) == 1

    told = capsys.readouterr()
    (new,) = service.jobs.keys() - set(ended)
    assert told.out == f"{ended[0]} → {new}\n"
    assert f"{ended[2]}: Only a job that has ended" in told.err


def test_drop_deletes_them(
    run: Run, service: FakeService, ended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("dead", "drop", ended[0]) == 0

    assert ended[0] not in service.jobs
    assert capsys.readouterr().out == f"{ended[0]} deleted\n"
