"""The verbs about the jobs there were: what lists ask for, and what an export writes."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from sfumato.cli import main
from sfumato.cli.export import COLUMNS, line_of
from sfumato.client import JobInfo
from sfumato.core.history import moment
from tests.fake_service import FakeService, job_json

Run = Callable[..., int]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def run(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: main([str(word) for word in arguments], transport=httpx.MockTransport(service))


def keep(service: FakeService, count: int, **changes: Any) -> list[str]:
    """Ids of jobs that the service has from now on."""
    ids = [f"0190b0f0-0000-7000-8000-{number:012d}" for number in range(count)]
    for job in ids:
        service.jobs[job] = job_json(job, status="succeeded", **changes)
    return ids


def exported(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    """What a spreadsheet reads of the CSV on standard output."""
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))


# Lists


@pytest.mark.parametrize("words", [["jobs"], ["jobs", "list"]])
def test_lists_ask_for_what_was_typed(run: Run, service: FakeService, words: list[str]) -> None:
    options = ["--model", "restyle", "--state", "failed", "--owner", "alice", "--limit", "7"]
    assert run(*words, *options, "--since", "2026-01-01", "--until", "2026-01-31T12:00:00Z") == 0
    assert dict(service.requests[-1].url.params) == {
        "model_name": "restyle",
        "status": "failed",
        "owner": "alice",
        "since": str(moment("2026-01-01")),
        "until": str(moment("2026-01-31T12:00:00Z")),
        "limit": "7",
    }


def test_since_may_be_how_long_ago(run: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    assert run("jobs", "--since", "2h") == 0
    assert service.requests[-1].url.params["since"] == "992800.0"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--since", "yesterday"], "must be a time such as 2026-01-31, 2026-01-31T12:00:00Z or Unix seconds, or how"),
        (["--until", "1e300"], "from 1970 to 9999"),
        (["--since", "2026-02-01", "--until", "2026-01-01"], "must be before --until"),
        (["--state", "odd"], "'odd' is not one of"),
    ],
)
def test_bad_times_are_told_before_anything_is_asked(
    run: Run, service: FakeService, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    for verb in (["jobs"], ["jobs", "export", "--format", "csv"]):
        assert run(*verb, *options) == 2
        assert says in capsys.readouterr().err
    assert service.requests == []


def test_options_before_another_verb_are_not_lost_silently(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("jobs", "--limit", "3", "export", "--format", "csv") == 2
    assert "write options behind export" in capsys.readouterr().err


def test_who_sees_the_jobs_of_all_is_shown_whose_each_is(
    run: Run, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(service, 1, owner="alice")
    assert run("jobs") == 0
    heads, row = capsys.readouterr().out.splitlines()
    assert heads.split()[:2] == ["owner", "job"]
    assert row.split()[0] == "alice"


# Exports


def test_export_has_every_job_of_every_page_once(
    run: Run, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = keep(service, 250)
    assert run("jobs", "export", "--format", "jsonl") == 0
    told = capsys.readouterr()
    assert [json.loads(line)["id"] for line in told.out.splitlines()] == ids
    assert "250/250" in told.err


def test_csv_has_a_column_for_each_thing_and_reads_back_as_it_was(
    run: Run, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = 'a "mosaic",\nof stones;\r\nblue\u2028and\tgreen'
    params = {"strength": 0.5, "seed": 7, "sampler": "ddim", "negative_prompt": "blur"}
    result = {"media_type": "image/png", "width": 64, "height": 48, "size_bytes": 11}
    error = {"type": "urn:sfumato:problem:x", "title": "t", "detail": "it, broke"}
    keep(service, 1, prompt=prompt, params=params, metadata={"order": "№ 7"}, result=result, error=error, owner="alice")
    assert run("jobs", "export", "--format", "csv", "--status", "succeeded") == 0
    (job,) = exported(capsys)
    assert tuple(job) == COLUMNS
    assert (job["prompt"], job["metadata"], job["owner"]) == (prompt, '{"order": "№ 7"}', "alice")
    assert (job["strength"], job["seed"], job["sampler"], job["guidance_scale"]) == ("0.5", "7", "ddim", "")
    assert (job["error_detail"], job["result_width"], job["result_bytes"]) == ("it, broke", "64", "11")
    assert (job["created_at"], job["started_at"]) == ("2026-01-02T03:04:05.006Z", "")


@pytest.mark.parametrize(
    "prompt",
    [
        '=HYPERLINK("http://x")',
        "+1",
        "-1+1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "  =1",
        "＝1",
        "\u00a0=1",
        "\t =1",
    ],
)
def test_no_cell_is_a_formula(prompt: str) -> None:
    job = JobInfo.model_validate(job_json("0190b0f0-0000-7000-8000-000000000000", prompt=prompt))
    (cells,) = csv.reader(io.StringIO(line_of(job, "csv"), newline=""))
    assert cells[COLUMNS.index("prompt")] == f"'{prompt}"
    assert json.loads(line_of(job, "jsonl"))["prompt"] == prompt


def test_an_ordinary_prompt_stays_as_it_is() -> None:
    job = JobInfo.model_validate(job_json("0190b0f0-0000-7000-8000-000000000000", prompt="1 = one"))
    (cells,) = csv.reader(io.StringIO(line_of(job, "csv"), newline=""))
    assert cells[COLUMNS.index("prompt")] == "1 = one"


def test_export_of_no_jobs_has_the_heads_alone(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("jobs", "export", "--format", "csv") == 0
    assert capsys.readouterr().out == ",".join(COLUMNS) + "\r\n"
    assert run("jobs", "export", "--format", "jsonl") == 0
    assert capsys.readouterr().out == ""


def test_file_is_there_when_it_is_whole(
    run: Run, service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(service, 3)
    assert run("jobs", "export", "--format", "jsonl", "-o", tmp_path / "jobs.jsonl") == 0
    assert len((tmp_path / "jobs.jsonl").read_text().splitlines()) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert f"saved {tmp_path / 'jobs.jsonl'}" in told.err


def test_export_that_fails_leaves_what_was_there(
    service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(service, 250)
    file = tmp_path / "jobs.csv"
    file.write_text("the one of yesterday")

    def until_page_two(request: httpx.Request) -> httpx.Response:
        if "cursor" in request.url.params:
            return httpx.Response(422, json={"type": "urn:sfumato:problem:bad-cursor", "detail": "no more."})
        return service(request)

    status = main(["jobs", "export", "--format", "csv", "-o", str(file)], transport=httpx.MockTransport(until_page_two))
    assert status == 1
    assert "no more." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.csv"]
    assert file.read_text() == "the one of yesterday"


def test_export_into_a_folder_that_is_not_there_says_so(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("jobs", "export", "--format", "csv", "-o", tmp_path / "nowhere" / "jobs.csv") == 1
    assert "No such file or directory" in capsys.readouterr().err


# Purges: what they delete is in tests/contract/test_purge.py


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Missing option '--older-than'"),
        (["--older-than", "30"], "must be a number and m, h, d or w, such as 90d"),
        (["--older-than", "0d"], "must be a number and m, h, d or w, such as 90d"),
        (["--older-than", "30d", "--state", "running"], "'running' is not one of"),
    ],
)
def test_purge_of_something_unclear_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert run("jobs", "purge", *words) == 2
    assert says in capsys.readouterr().err


def test_purge_of_no_folder_makes_none(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("jobs", "purge", "--older-than", "1d", "--data-dir", tmp_path / "typo") == 1
    assert "name the service's own with --data-dir" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
