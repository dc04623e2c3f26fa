"""Every verb that prints a result prints it as JSON when asked to, with the names that the HTTP API has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from sfumato.cli import main
from tests.fake_service import FakeService, job_json
from tests.render_cli import verbs

VERBS = dict(verbs())
DONE, UNKNOWN = "0190b0f0-0000-7000-8000-000000000002", "0190b0f0-0000-7000-8000-0000000000ff"
WITHOUT = {
    "sfumato up": "it runs until it is stopped and prints log lines alone (SFUMATO_LOG_FORMAT=json)",
    "sfumato cluster up": "the same",
    "sfumato gateway": "the same",
    "sfumato dispatcher": "the same",
    "sfumato controller": "the same",
    "sfumato recorder": "the same",
    "sfumato worker": "the same",
    "sfumato workers": "the same",
    "sfumato jobs export": "what it writes is for machines: --format csv or jsonl",
}
INTO_A_FILE = {name for name in VERBS if name.startswith("sfumato bench ")} | {"sfumato simulate"}
"""Their rows go to the file that `--json` names, beside the table."""

Run = Callable[..., list[dict[str, Any]]]


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_that_prints_has_json_and_says_which_form(verb: str) -> None:
    found = [option for option in VERBS[verb].params if "--json" in option.opts]
    if verb in WITHOUT:
        assert found == [], "it has --json now; take it off the list"
        return
    (option,) = found
    if verb in INTO_A_FILE:
        assert not option.is_flag
    else:
        assert option.help.startswith(("One JSON object", "JSON lines"))


def test_what_has_no_json_exists() -> None:
    assert WITHOUT.keys() <= VERBS.keys()


@pytest.fixture
def service() -> FakeService:
    service = FakeService()
    service.jobs[DONE] = job_json(DONE, status="succeeded", prompt="neon")
    service.hooks.deliver("whd_1")
    return service


@pytest.fixture
def run(service: FakeService, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str, status: int = 0) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main([*words, "--json"], httpx.MockTransport(service)) == status
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_a_canceled_job_is_told_as_the_service_tells_it(run: Run, service: FakeService) -> None:
    service.jobs[DONE]["status"] = "queued"
    (job,) = run("cancel", DONE)
    assert (job["id"], job["status"], job["result_url"]) == (DONE, "canceled", service.jobs[DONE]["result_url"])


@pytest.mark.parametrize("verb", [["delete"], ["dead", "drop"]])
def test_each_of_several_jobs_has_its_line_whatever_became_of_it(run: Run, verb: list[str]) -> None:
    refused, gone = run(*verb, UNKNOWN, DONE, status=1)
    assert refused["id"] == UNKNOWN
    assert refused["error"]["type"] == "urn:sfumato:problem:not-found"
    assert gone == {"id": DONE, "deleted": True}


def test_a_job_tried_again_names_the_one_before(run: Run) -> None:
    (job,) = run("dead", "retry", DONE)
    assert (job["retry_of"], job["status"]) == (DONE, "queued")
    assert job["id"] != DONE


def test_webhooks_tell_their_ends_and_secrets(run: Run, service: FakeService) -> None:
    run("webhooks", "add", "https://example.com/hook")
    assert run("webhooks", "remove", "ep_0") == [{"id": "ep_0", "removed": True}]
    assert run("webhooks", "secrets") == [{"secrets": ["whsec_mine", "whsec_before"]}]
    (delivery,) = run("webhooks", "redeliver", "whd_1")
    assert (delivery["id"], delivery["state"]) == ("whd_1", "pending")


def test_a_refused_picture_is_told_as_a_problem(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    (sent,) = run("submit", str(tmp_path), "--model", "restyle", "--prompt", "neon", status=1)
    assert sent["error"]["type"] == "urn:sfumato:problem:unsupported-picture"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SFUMATO_DATA_DIR", str(tmp_path))
    return tmp_path


def test_a_key_is_told_whole_once_and_then_without_its_secret(run: Run, data: Path) -> None:
    assert run("keys", "list") == []
    (made,) = run("keys", "create", "alice", "--per-day", "5000", "--expires", "1d")
    assert made["key"].startswith(f"sfu_{made['prefix']}_")
    (listed,) = run("keys", "list")
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert (listed["owner"], listed["state"], listed["per_day"], listed["rate"]) == ("alice", "good", 5000, None)
    assert listed["expires_at"].endswith("Z")
    (revoked,) = run("keys", "revoke", made["prefix"])
    assert (revoked["prefix"], revoked["state"]) == (made["prefix"], "revoked")


def test_the_database_tells_where_it_is(run: Run, data: Path) -> None:
    (before,) = run("db", "status", status=1)
    assert (before["revision"], before["ready"]) == (None, False)
    assert "upgrade" in before["advice"]
    (changed,) = run("db", "upgrade")
    assert (changed["was"], changed["changed"], changed["ready"]) == (None, True, True)
    (after,) = run("db", "status")
    assert (after["ready"], after["advice"]) == (True, "")
    assert run("db", "upgrade")[0]["changed"] is False


def test_the_list_of_models_tells_what_was_changed(run: Run, data: Path) -> None:
    from sfumato.models.model import FOLDER

    (added,) = run("models", "add", "ours", str(FOLDER))
    assert (added["name"], added["backend"], added["kept_bundled"]) == ("ours", "onnx", True)
    assert added["models_file"] == str(data / "models.toml")
    assert all(len(shape) == 2 for shape in added["shapes"])
    (removed,) = run("models", "remove", "ours")
    assert (removed["name"], removed["left"]) == ("ours", ["restyle"])


def test_a_folder_has_no_lifecycle(run: Run, data: Path) -> None:
    assert run("storage", "lifecycle") == [{"bucket": None, "days": {}}]


def test_rows_that_could_not_be_written_are_refused_before_they_are_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["simulate", "--json", str(tmp_path / "nowhere" / "rows.json")]) == 2
    assert "--json" in capsys.readouterr().err
