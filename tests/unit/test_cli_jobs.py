"""The client's verbs against a service in memory."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from sfumato.cli import explained, main, options, show
from sfumato.client import Busy, InvalidRequest, JobInfo, TransientError, flows
from sfumato.client.batch import Order, Sent
from sfumato.core.retry import RetryPolicy
from tests.fake_service import FakeService, job_json

Run = Callable[..., int]


@pytest.fixture
def service() -> FakeService:
    return FakeService(picture=b"mosaic")


@pytest.fixture
def run(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(flows, "_SHORTEST_PAUSE_S", 0.0)
    return lambda *arguments: main([str(word) for word in arguments], transport=httpx.MockTransport(service))


@pytest.fixture
def boat(tmp_path: Path) -> Path:
    path = tmp_path / "boat.png"
    path.write_bytes(b"boat")
    return path


def submit(run: Run, *arguments: object) -> int:
    return run("submit", *arguments, "--model", "restyle", "--prompt", "as a [mosaic]")


def test_submit_prints_the_access_link(run: Run, boat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(run, boat) == 0
    assert capsys.readouterr().out == (
        f"{boat}  http://service/api/jobs/0190b0f0-0000-7000-8000-000000000000/result?token=t\n"
    )


def test_links_stand_in_the_order_given_with_the_files_own_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = [Order(tmp_path / name, "lake", {}) for name in ("lake.png", "lake.jpg", "refused.png", "lake.webp")]
    job = JobInfo.model_validate(job_json("0190b0f0-0000-7000-8000-000000000000"))
    with show.Board(orders, follow=False, links=True) as board:
        for sent in (Sent(orders[3], job), Sent(orders[1], job), Sent(orders[2]), Sent(orders[0], job)):
            board.told(sent)
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [
        str(tmp_path / name) for name in ("lake.png", "lake.jpg", "lake.webp")
    ]


def test_a_wrong_model_is_told_once_for_many_pictures(
    run: Run, service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"picture")
    assert run("submit", tmp_path, "--model", "restile", "--prompt", "neon") == 1
    assert capsys.readouterr().err.count("restile") == 1
    assert [request.method for request in service.requests] == ["GET", "POST"]


def test_out_that_is_a_file_is_a_wrong_command_line(
    run: Run, boat: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert submit(run, boat, "--out", boat) == 2
    told = capsys.readouterr().err
    assert "--out" in told
    assert "is a file" in told


def test_a_wrong_choice_is_told_in_plain_words(
    run: Run, boat: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert submit(run, boat, "--priority", "urgent") == 2
    assert "Invalid value for '--priority': 'urgent' is not one of" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["submit"], ["bench", "engine"], []])
def test_a_flag_has_no_type_in_the_help(run: Run, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert run(*words, "--help") == 0
    assert "bool" not in capsys.readouterr().out


def test_submit_sends_what_was_asked(run: Run, service: FakeService, boat: Path) -> None:
    options = ["--priority", "high", "--strength", "0.4", "--steps", "9", "--seed", "3", "--sampler", "ddim"]
    assert submit(run, boat, *options, "--guidance", "2", "--negative-prompt", "blur", "--format", "webp") == 0
    asked = service.requests[-1].url.params
    assert {name: asked[name] for name in asked if name != "prompt"} == {
        "model_name": "restyle",
        "priority": "high",
        "negative_prompt": "blur",
        "strength": "0.4",
        "num_inference_steps": "9",
        "guidance_scale": "2.0",
        "seed": "3",
        "sampler": "ddim",
        "output_format": "webp",
    }


def test_out_waits_and_saves_a_folders_results(
    run: Run, boat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lake.jpg").write_bytes(b"lake")
    assert submit(run, tmp_path, "--out", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["boat.png", "lake.png"]
    told = capsys.readouterr()
    assert f"{boat} → {tmp_path / 'out' / 'boat.png'}" in told.out
    assert "succeeded 2" in told.err


@pytest.mark.parametrize("more", [[], ["--wait"]])
def test_a_warning_is_told_once_for_many_pictures(
    run: Run, service: FakeService, boat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    (tmp_path / "lake.jpg").write_bytes(b"lake")
    service.warnings = ["The prompt has no word that restyle knows."]
    assert submit(run, tmp_path, *more) == 0
    assert boat.exists()
    assert capsys.readouterr().err.count("no word that restyle knows") == 1


def test_json_is_one_object_a_picture(
    run: Run, service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("boat", "broken"):
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    assert submit(run, tmp_path, "--wait", "--json") == 1
    boat, broken = map(json.loads, capsys.readouterr().out.splitlines())
    assert (boat["status"], boat["error"]) == ("succeeded", None)
    assert boat["result_url"].startswith("http://service/")
    assert broken["error"] == {
        "type": service.jobs[broken["id"]]["error"]["type"],
        "slug": "job-failed",
        "detail": "The picture is broken.",
    }


def test_a_failed_job_is_told_and_fails_the_command(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"broken")
    assert submit(run, tmp_path, "--wait") == 1
    assert "broken.png: The picture is broken." in capsys.readouterr().err


def test_a_missing_folder_is_told_before_anything_is_sent(
    run: Run, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(run, "nowhere") == 1
    assert "nowhere does not exist" in capsys.readouterr().err
    assert service.requests == []


@pytest.mark.parametrize("wrong", [["--priority", "urgent"], ["--strength", "much"], ["--format", "bmp"], ["--what"]])
def test_a_wrong_command_line_is_status_2(run: Run, boat: Path, wrong: list[str]) -> None:
    assert submit(run, boat, *wrong) == 2


def test_nobody_there_is_told_with_the_command_that_helps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "PROMPT_PATIENCE", RetryPolicy(max_attempts=2, first_s=0.0))

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno 111] Connection refused")

    assert main(["models"], transport=httpx.MockTransport(refuse)) == 1
    told = capsys.readouterr().err
    assert "Connection refused" in told
    assert "sfumato up" in told
    assert "Traceback" not in told


def job_id(service: FakeService) -> str:
    return next(iter(service.jobs))


def test_get_shows_the_job_with_its_prompt_as_it_is(
    run: Run, service: FakeService, boat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(run, boat)
    assert run("get", job_id(service)) == 0
    told = capsys.readouterr().out
    assert "as a [mosaic]" in told
    assert "queued" in told


def test_what_is_printed_into_a_pipe_is_never_cut(
    run: Run, service: FakeService, boat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(run, boat)
    service.jobs[job_id(service)]["result_url"] += "x" * 200
    run("get", job_id(service))
    assert service.jobs[job_id(service)]["result_url"] in capsys.readouterr().out


def test_get_out_saves_the_result_under_the_id(run: Run, service: FakeService, boat: Path, tmp_path: Path) -> None:
    submit(run, boat)
    assert run("get", job_id(service), "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / f"{job_id(service)}.png").read_bytes() == b"mosaic"


def test_a_public_address_out_of_reach_is_never_asked(
    run: Run, service: FakeService, boat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.base = "https://pictures.example"
    assert submit(run, boat, "--out", tmp_path / "out") == 0
    assert run("get", job_id(service), "--out", tmp_path / "again") == 0
    assert run("watch", job_id(service)) == 0
    assert {request.url.host for request in service.requests} == {"127.0.0.1"}
    assert capsys.readouterr().out.count("https://pictures.example/api/jobs/") == 3


def test_get_of_an_unknown_job_fails(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("get", "0190b0f0-0000-7000-8000-00000000000f") == 1
    assert "There is no such job." in capsys.readouterr().err


def test_watch_tells_each_state_until_the_end(
    run: Run, service: FakeService, boat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(run, boat)
    capsys.readouterr()
    assert run("watch", job_id(service), "--json") == 0
    assert [json.loads(line)["status"] for line in capsys.readouterr().out.splitlines()] == [
        "queued",
        "running",
        "succeeded",
    ]


def test_watch_of_a_job_that_fails_fails(run: Run, service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"broken")
    submit(run, tmp_path / "broken.png")
    assert run("watch", job_id(service)) == 1


def test_cancel_goes_on_after_one_that_has_ended(
    run: Run, service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"picture")
    submit(run, tmp_path)
    first, second = service.jobs
    service.jobs[first]["status"] = "succeeded"
    assert run("cancel", first, second) == 1
    told = capsys.readouterr()
    assert f"{second} canceled" in told.out
    assert "The job ended succeeded." in told.err


def test_delete_goes_on_after_one_that_is_unknown(
    run: Run, service: FakeService, boat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(run, boat, "--wait") == 0
    (job_id,) = service.jobs
    capsys.readouterr()
    assert run("delete", "0190b0f0-0000-7000-8000-00000000abcd", job_id) == 1
    assert capsys.readouterr().out == f"{job_id} deleted\n"


def test_picture_over_a_limit_was_refused_for_sure(tmp_path: Path) -> None:
    order = Order(tmp_path / "lake.png", "lake", {})
    assert Sent(order, error=Busy("A million are used up.", 60.0)).state == "refused"
    assert Sent(order, error=TransientError("no answer")).state == "unknown"


def test_who_shows_no_key_is_told_where_it_goes() -> None:
    said = explained(InvalidRequest("Send a key.", slug="unauthorized", status=401))
    assert "SFUMATO_API_KEY" in said


def test_jobs_lists_only_what_was_asked_for(
    run: Run, service: FakeService, boat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(run, boat)
    capsys.readouterr()
    assert run("jobs", "--status", "failed", "--json") == 0
    assert capsys.readouterr().out == ""
    assert run("jobs", "--limit", "5") == 0
    assert job_id(service) in capsys.readouterr().out


def listed(service: FakeService, prompt: str) -> None:
    for number in range(2):
        one = f"0190b0f0-0000-7000-8000-{number:012d}"
        service.jobs[one] = job_json(one, status="succeeded", prompt=prompt, priority="high")


LONG = "stained glass\nof a cathedral, " * 30


def test_jobs_is_one_line_a_job_with_all_but_the_prompt_whole(
    run: Run, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    listed(service, LONG)
    assert run("jobs") == 0
    heads, *rows = capsys.readouterr().out.splitlines()
    assert heads.split() == ["job", "status", "model", "prio", "created", "prompt"]
    for row, one in zip(rows, service.jobs, strict=True):
        assert row.startswith(f"{one} succeeded restyle high 01-02 03:04 stained glass of a ")
        assert row.rstrip().endswith("…")


@pytest.mark.parametrize(("width", "prompt"), [(80, "stained…"), (72, "")])
def test_a_narrow_terminal_cuts_only_the_prompt(
    service: FakeService, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, prompt: str
) -> None:
    listed(service, LONG)
    monkeypatch.setattr(show, "_width", lambda: width)
    show.show_jobs(JobInfo.model_validate(one) for one in service.jobs.values())
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.rstrip() for row in rows] == [
        f"{one} succeeded restyle high 01-02 03:04 {prompt}".rstrip() for one in service.jobs
    ]


def test_no_jobs_is_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("jobs") == 0
    assert capsys.readouterr().out == "no jobs\n"


def test_json_times_are_the_services_own(run: Run, service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    listed(service, "neon")
    assert run("jobs", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["created_at"] == "2026-01-02T03:04:05.006Z"


def test_steps_are_shown_once_they_are_known(
    run: Run, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    listed(service, "neon")
    one = job_id(service)
    for steps, shown in ((0, False), (4, True)):
        service.jobs[one] |= {"status": "running", "progress": {"step": 0, "steps": steps}}
        assert run("get", one) == 0
        with show.JobBar(silent=False) as bar:
            bar.told(JobInfo.model_validate(job_json(one, status="running", progress={"step": 0, "steps": steps})))
        told = capsys.readouterr()
        assert [f"step 0 of {steps}" in text for text in told] == [shown, shown]
