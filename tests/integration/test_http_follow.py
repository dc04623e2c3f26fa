"""Following jobs over HTTP: status, lists, cancel, delete and the access link."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sfumato.core.events import Watched, decode_event
from sfumato.core.job import State, preview_key
from sfumato.core.scaling import Decided
from sfumato.gateway import events
from tests.integration.gateway_service import MODEL, GatewayService, OpenStream, gateway_service, problem
from tests.support import job_id, poll


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    with gateway_service(tmp_path) as running:
        yield running


def test_the_link_answers_202_until_there_is_a_picture(service: GatewayService) -> None:
    link = service.accepted()["result_url"]
    waiting = service.client.get(link)
    assert (waiting.status_code, waiting.json()["status"]) == (202, "queued")
    assert 1 <= int(waiting.headers["retry-after"]) <= 30
    assert waiting.headers["cache-control"] == "no-store"

    outcome = service.end(waiting.json()["id"])
    done = service.client.get(link)
    assert (done.status_code, done.content) == (200, b"the picture")
    assert done.headers["content-type"] == "image/png"
    assert done.headers["content-disposition"] == f'inline; filename="{outcome.job_id}.png"'
    assert done.headers["content-length"] == "11"


def test_head_says_what_get_would(service: GatewayService) -> None:
    link = service.accepted()["result_url"]
    assert service.client.head(link).status_code == 202
    service.end(service.published()[0].id)
    head, get = service.client.head(link), service.client.get(link)
    assert (head.status_code, head.content) == (200, b"")
    assert {**head.headers} == {**get.headers}


def test_an_unchanged_picture_is_not_sent_again(service: GatewayService) -> None:
    link = service.accepted()["result_url"]
    service.end(service.published()[0].id)
    etag = service.client.get(link).headers["etag"]
    again = service.client.get(link, headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(("state", "slug"), [(State.FAILED, "job-failed"), (State.CANCELED, "job-canceled")])
def test_the_link_answers_410_when_there_will_be_no_picture(service: GatewayService, state: State, slug: str) -> None:
    link = service.accepted()["result_url"]
    service.end(service.published()[0].id, state)
    response = service.client.get(link)
    body = problem(response, 410, slug)
    assert response.headers["cache-control"] == "no-store"
    if state is State.FAILED:
        assert body["error"]["type"] == "urn:sfumato:problem:bad-picture"


def test_the_link_can_wait(service: GatewayService) -> None:
    link = service.accepted()["result_url"]
    assert service.client.get(link, headers={"Prefer": "wait=1"}).status_code == 202


@pytest.mark.parametrize("path", ["", "/result", "/cancel", "/events"])
def test_a_wrong_token_looks_like_an_unknown_job(service: GatewayService, path: str) -> None:
    known = service.accepted()["id"]
    method = "POST" if path == "/cancel" else "GET"
    wrong = service.client.request(method, f"/api/jobs/{known}{path}?token=1.x")
    unknown = service.client.request(method, f"/api/jobs/{job_id(1)}{path}")
    nonsense = service.client.request(method, f"/api/jobs/nonsense{path}")
    for response in (wrong, unknown, nonsense):
        problem(response, 404, "not-found")
    assert wrong.content == unknown.content == nonsense.content


def test_links_begin_with_the_public_address(tmp_path: Path) -> None:
    with gateway_service(tmp_path, public_url="https://pictures.example/") as service:
        assert service.accepted()["result_url"].startswith("https://pictures.example/api/jobs/")


def test_a_job_is_shown_before_and_after_it_is_recorded(service: GatewayService) -> None:
    answer = service.accepted(prompt="neon", metadata='{"a": 1}')
    fresh = service.client.get(answer["status_url"]).json()
    service.record()
    recorded = service.client.get(f"/api/jobs/{answer['id']}").json()
    assert fresh == recorded
    assert (fresh["prompt"], fresh["metadata"], fresh["model_name"]) == ("neon", {"a": 1}, MODEL)
    assert fresh["estimate"] == {"position": 1, "eta_s": None}
    assert fresh["result_url"] == answer["result_url"]
    assert fresh["created_at"].endswith("Z")


def test_a_job_of_another_gateway_is_known_by_its_link_or_its_input(service: GatewayService) -> None:
    answer = service.accepted()
    service.app.state.gateway.live.forget(answer["id"])
    by_link = service.client.get(answer["status_url"])
    by_input = service.client.get(f"/api/jobs/{answer['id']}")
    assert by_link.status_code == by_input.status_code == 200
    assert by_link.json()["status"] == "queued"
    assert service.client.get(f"/api/jobs/{answer['id']}/result").status_code == 202
    service.world.blobs.clear()
    assert service.client.get(f"/api/jobs/{answer['id']}/result").status_code == 404
    assert service.client.get(answer["result_url"]).status_code == 202


def test_an_ended_job_says_how_it_went(service: GatewayService) -> None:
    answer = service.accepted()
    service.record()
    service.end(answer["id"])
    job = service.client.get(answer["status_url"]).json()
    assert job["status"] == "succeeded"
    assert job["result"] == {"media_type": "image/png", "width": 64, "height": 48, "size_bytes": 11}
    assert {"fetch_s", "total_s"} <= job["timings"].keys()
    assert job["finished_at"]
    assert job["estimate"] is None


def test_position_and_eta_come_from_the_dispatcher(service: GatewayService) -> None:
    first, second = service.accepted()["id"], service.accepted()["id"]
    cost = service.published()[0].cost
    service.stand(waiting=2, front=(second, first), front_costs=(cost, cost), cost_per_s=cost / 20)
    job = service.client.get(f"/api/jobs/{first}").json()
    assert job["estimate"] == {"position": 2, "eta_s": 40.0}
    assert service.client.get(f"/api/jobs/{first}/result").headers["retry-after"] == "30"
    assert service.client.get(f"/api/jobs/{second}/result").headers["retry-after"] == "20"


def test_lists_go_page_by_page_newest_first(service: GatewayService) -> None:
    ids = [service.accepted()["id"] for _ in range(5)]
    service.record()
    first = service.client.get("/api/jobs", params={"limit": 2}).json()
    second = service.client.get("/api/jobs", params={"limit": 2, "cursor": first["next"]}).json()
    third = service.client.get("/api/jobs", params={"limit": 2, "cursor": second["next"]}).json()
    assert [job["id"] for page in (first, second, third) for job in page["jobs"]] == ids[::-1]
    assert third["next"] is None


def test_lists_are_filtered(service: GatewayService) -> None:
    mine = service.accepted()["id"]
    service.accepted(model_name="small")
    service.record()
    listed = service.client.get("/api/jobs", params={"model_name": MODEL, "status": "queued"}).json()["jobs"]
    assert [job["id"] for job in listed] == [mine]
    assert service.client.get("/api/jobs", params={"status": "failed"}).json() == {"jobs": [], "next": None}


def test_lists_go_from_since_to_before_until(service: GatewayService) -> None:
    ids = [service.accepted()["id"] for _ in range(3)]
    service.record()
    created = [service.client.get(f"/api/jobs/{job}").json()["created_at"] for job in ids]
    times = [service.world.rows[job].job.created_at for job in ids]

    def listed(**asked: object) -> list[str]:
        answer = service.client.get("/api/jobs", params={name: str(value) for name, value in asked.items()})
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["jobs"]]

    assert listed(since=times[1]) == ids[:0:-1]
    assert listed(until=times[1]) == ids[:1]
    assert listed(since=times[1], until=times[2]) == ids[1:2]
    assert set(ids[1:]) <= set(listed(since=created[1]))  # to the millisecond, rounded down
    assert listed(since="2999-01-01") == listed(until="2026-01-01T00:00:00+01:00") == []


def test_time_whose_plus_nobody_encoded_is_understood(service: GatewayService) -> None:
    assert service.client.get("/api/jobs?since=2026-01-01T00:00:00+01:00").status_code == 200


def test_count_is_of_all_pages_and_only_when_asked_for(service: GatewayService) -> None:
    for _ in range(3):
        service.accepted()
    service.record()
    assert service.client.get("/api/jobs", params={"limit": 1, "count": "true"}).json()["count"] == 3
    assert "count" not in service.client.get("/api/jobs").json()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"since": "yesterday"}, "since is 'yesterday'; it must be a time such as 2026-01-31"),
        ({"until": "2026-13-01"}, "until is '2026-13-01'; it must be a time such as"),
        ({"since": "nan"}, "from 1970 to 9999"),
        ({"since": "-1"}, "from 1970 to 9999"),
        ({"since": "1e300"}, "from 1970 to 9999"),
        ({"since": "0001-01-01T00:00:00+23:59"}, "from 1970 to 9999"),
        ({"since": "2026-01-02", "until": "2026-01-01"}, "since must be before until"),
        ({"since": "2026-01-02", "until": "2026-01-02"}, "since must be before until"),
        ({"owner": "a\0b"}, "must not hold the character NUL"),
        ({"count": "many"}, "count is 'many'"),
    ],
)
def test_bad_times_and_names_are_told_with_what_would_do(
    service: GatewayService, query: dict[str, str], says: str
) -> None:
    assert says in problem(service.client.get("/api/jobs", params=query), 422, "invalid-parameters")["detail"]


@pytest.mark.parametrize(
    ("query", "status", "slug"),
    [
        ({"status": "odd"}, 422, "invalid-parameters"),
        ({"limit": "0"}, 422, "invalid-parameters"),
        ({"model_name": "nope"}, 404, "unknown-model"),
        ({"colour": "red"}, 422, "unknown-parameter"),
        ({"limit": ["1", "2"]}, 422, "invalid-parameters"),
    ],
)
def test_bad_lists_are_refused(service: GatewayService, query: dict[str, Any], status: int, slug: str) -> None:
    problem(service.client.get("/api/jobs", params=query), status, slug)


@pytest.mark.parametrize("recorded", [False, True])
def test_cancel_ends_a_waiting_job_and_tells_it(service: GatewayService, recorded: bool) -> None:
    answer = service.accepted()
    if recorded:
        service.record()
    canceled = service.client.post(f"/api/jobs/{answer['id']}/cancel")
    assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
    assert service.world.outcomes[answer["id"]].state is State.CANCELED
    assert '"final"' in service.world.topic(MODEL).events[-1]
    problem(service.client.get(answer["result_url"]), 410, "job-canceled")


def test_cancel_twice_is_cancel_once(service: GatewayService) -> None:
    answer = service.accepted()
    first = service.client.post(f"/api/jobs/{answer['id']}/cancel")
    second = service.client.post(f"/api/jobs/{answer['id']}/cancel")
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["finished_at"] == second.json()["finished_at"]


def test_cancel_after_the_end_says_which_end_holds(service: GatewayService) -> None:
    answer = service.accepted()
    service.end(answer["id"])
    body = problem(service.client.post(f"/api/jobs/{answer['id']}/cancel"), 409, "already-ended")
    assert body["job_status"] == "succeeded"
    assert service.client.get(answer["result_url"]).status_code == 200


def test_only_ended_jobs_are_deleted(service: GatewayService) -> None:
    answer = service.accepted()
    problem(service.client.delete(f"/api/jobs/{answer['id']}"), 409, "job-not-ended")


def test_a_deleted_job_leaves_a_tombstone_and_no_picture(service: GatewayService) -> None:
    answer = service.accepted()
    service.record()
    service.end(answer["id"])
    service.world.blobs[preview_key(answer["id"])] = (b"left by a worker that was killed", 0.0)
    assert service.client.delete(f"/api/jobs/{answer['id']}").status_code == 204
    assert not service.world.blobs
    assert answer["id"] in service.world.outcomes
    problem(service.client.get(f"/api/jobs/{answer['id']}"), 404, "not-found")
    problem(service.client.get(answer["result_url"]), 410, "picture-gone")
    assert service.client.get("/api/jobs").json()["jobs"] == []
    problem(service.client.delete(f"/api/jobs/{answer['id']}"), 404, "not-found")


def test_models_say_what_they_allow_and_how_busy_they_are(service: GatewayService) -> None:
    service.accepted()
    models = {model["name"]: model for model in service.client.get("/api/models").json()["models"]}
    assert models[MODEL]["backlog"]["waiting"] == 1
    assert (models[MODEL]["state"], models["small"]["state"]) == ("starting", "idle")
    assert models[MODEL]["rules"]["samplers"]


def test_scale_is_what_the_controller_decided(service: GatewayService) -> None:
    problem(service.client.get(f"/api/scale/{MODEL}"), 503, "not-decided")
    problem(service.client.get("/api/scale/nope"), 404, "unknown-model")

    service.scaling.decided[MODEL] = Decided(2, "14 jobs wait.", 1_700_000_000.0)

    assert service.client.get(f"/api/scale/{MODEL}").json() == {
        "model": MODEL,
        "desired_replicas": 2,
        "workers": 0,
        "why": "14 jobs wait.",
        "decided_at": "2023-11-14T22:13:20.000Z",
    }


def test_last_decision_stays_while_the_rows_are_away(service: GatewayService) -> None:
    service.faults.failing.add("decisions")
    assert service.client.get(f"/api/scale/{MODEL}").status_code == 503
    service.faults.failing.clear()
    service.scaling.decided[MODEL] = Decided(2, "14 jobs wait.", 1_700_000_000.0)
    service.client.get(f"/api/scale/{MODEL}")

    service.faults.failing.add("decisions")

    assert service.client.get(f"/api/scale/{MODEL}").json()["desired_replicas"] == 2


def test_health_readiness_and_status(service: GatewayService) -> None:
    assert service.client.get("/healthz").json() == {"status": "ok"}
    assert service.client.get("/readyz").json() == {"status": "ready"}
    assert service.client.get("/api/status").json()["status"] == "ok"

    service.faults.failing.add("row")
    body = problem(service.client.get("/readyz"), 503, "not-ready")
    assert "rows" in body["detail"]
    assert service.client.get("/healthz").status_code == 200
    assert service.client.get("/api/status").json()["status"] == "degraded"


def test_metrics_count_what_was_accepted(service: GatewayService) -> None:
    service.accepted(priority="low")
    text = service.client.get("/metrics").text
    assert f'sfumato_accepts_total{{model="{MODEL}",priority="low"}}' in text


def test_jobs_accepted_here_follow_the_event_log(service: GatewayService) -> None:
    answer = service.accepted()
    poll(lambda: service.app.state.gateway.live.row(answer["id"]))
    service.end(answer["id"])
    poll(lambda: service.app.state.gateway.live.row(answer["id"]).state.terminal)


@pytest.mark.parametrize(
    ("method", "path", "status", "slug"),
    [
        ("GET", "/nowhere", 404, "no-such-route"),
        ("PATCH", "/api/jobs", 405, "method-not-allowed"),
        ("DELETE", "/healthz", 405, "method-not-allowed"),
    ],
)
def test_wrong_addresses_are_problems_too(
    service: GatewayService, method: str, path: str, status: int, slug: str
) -> None:
    problem(service.client.request(method, path), status, slug)


def test_what_nobody_foresaw_is_a_problem_without_details(service: GatewayService) -> None:
    def broken() -> float:
        raise RuntimeError("the secret reason")

    object.__setattr__(service.app.state.gateway, "clock", broken)
    response = service.client.get("/api/models")
    problem(response, 500, "internal-error")
    assert "secret" not in response.text


def test_the_api_describes_itself(service: GatewayService) -> None:
    paths = service.client.get("/openapi.json").json()["paths"]
    named = {parameter["name"] for parameter in paths["/api/diffusion"]["post"]["parameters"]}
    assert {"model_name", "prompt", "priority", "strength"} <= named
    page = service.client.get("/docs")
    assert page.status_code == 200
    for address in re.findall(r"""(?:src|href|url: |\w+Url": )=?\s*["']([^"']+)""", page.text):
        assert address.startswith("/")
        assert not address.startswith("//")
        assert service.client.get(address).status_code == 200
    assert not re.search(r"https?://", page.text.replace(str(service.client.base_url), ""))
    assert '"validatorUrl": null' in page.text
    assert urlsplit(str(service.client.base_url)).scheme == "http"


def _events(text: str) -> list[tuple[str, str]]:
    """(id, kind) of each event of a stream."""
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block]
    return [(block.get("id", ""), block["event"]) for block in blocks]


def test_events_are_replayed_once_and_end_with_the_job(service: GatewayService) -> None:
    answer = service.accepted()
    service.start(answer["id"])
    service.end(answer["id"])
    poll(lambda: service.app.state.gateway.live.row(answer["id"]).state.terminal)
    whole = service.client.get(answer["events_url"])
    assert whole.headers["content-type"].startswith("text/event-stream")
    assert _events(whole.text) == [("0", "queued"), ("1", "started"), ("2", "final")]
    assert '"status": "succeeded"' in whole.text

    queued, started = whole.text.split("\n\n")[:2]
    assert "worker" not in queued
    assert '"worker": "w"' in started

    rest = service.client.get(answer["events_url"], headers={"Last-Event-ID": "1"})
    assert _events(rest.text) == [("2", "final")]


def test_job_accepted_elsewhere_is_followed_from_before_it_is_recorded(service: GatewayService) -> None:
    answer = service.accepted()
    # As on another gateway than the one that accepted it.
    service.app.state.gateway.live.forget(answer["id"])
    threading.Timer(0.4, service.start, [answer["id"]]).start()
    threading.Timer(0.8, service.fold).start()
    threading.Timer(1.2, service.end, [answer["id"]]).start()

    stream = service.client.get(answer["events_url"])

    assert _events(stream.text) == [("0", "queued"), ("1", "started"), ("2", "final")]


def test_what_happened_before_the_client_came_is_told_though_it_was_recorded_after(service: GatewayService) -> None:
    answer = service.accepted()
    service.record()
    service.app.state.gateway.live.forget(answer["id"])  # as on another gateway than the one that accepted it
    service.start(answer["id"])
    threading.Timer(0.4, service.end, [answer["id"]]).start()
    threading.Timer(0.8, service.fold).start()

    stream = service.client.get(answer["events_url"])

    told = [event for event in _events(stream.text) if event[0]]
    assert told == [("0", "queued"), ("1", "started"), ("2", "final")]


def test_row_that_lags_behind_what_was_told_repeats_nothing(
    service: GatewayService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(events, "LAGS_S", 0.0)
    answer = service.accepted()
    service.record()
    service.app.state.gateway.live.forget(answer["id"])
    threading.Timer(0.4, service.start, [answer["id"]]).start()
    threading.Timer(0.8, service.start, [answer["id"], 3, 8]).start()
    service.end_soon(answer["id"], after_s=1.2)

    stream = service.client.get(answer["events_url"])

    assert _events(stream.text) == [
        ("0", "queued"),
        ("", "waiting"),
        ("1", "started"),
        ("2", "started"),
        ("", "progress"),
        ("4", "final"),
    ]


def test_events_show_progress_while_it_runs(service: GatewayService) -> None:
    answer = service.accepted()
    service.start(answer["id"], step=3, steps=8)
    live = service.app.state.gateway.live
    poll(lambda: live.progress(MODEL, live.row(answer["id"])))
    assert service.client.get(answer["status_url"]).json()["progress"] == {"step": 3, "steps": 8}
    service.end_soon(answer["id"])
    kinds = [kind for _, kind in _events(service.client.get(answer["events_url"]).text)]
    assert kinds == ["queued", "started", "progress", "final"]


def test_events_tell_a_waiting_job_its_place_as_it_changes(service: GatewayService) -> None:
    answer = service.accepted()
    first, job_id = "00000000-0000-7000-8000-00000000abcd", answer["id"]
    with OpenStream(service, answer["events_url"].partition("testserver")[2], {}) as told:
        poll(lambda: _places(told) == [1])  # by its owner's jobs alone, before the dispatcher told anything
        for front in ((first, job_id), (first, job_id), (job_id,)):
            service.stand(waiting=2, front=front, front_costs=(1,) * len(front))
            poll(lambda front=front: _places(told)[-1:] == [front.index(job_id) + 1])  # type: ignore[misc]
        assert _places(told) == [1, 2, 1]


def _places(stream: OpenStream) -> list[int]:
    return [data["position"] for kind, _, data in stream.events() if kind == "waiting"]


def test_previews_come_to_who_asks_for_them_and_are_asked_of_the_worker(service: GatewayService) -> None:
    answer = service.accepted()
    service.world.blobs[preview_key(answer["id"])] = (b"a small picture", 0.0)
    service.start(answer["id"], step=3, steps=8, preview=2)
    live = service.app.state.gateway.live
    poll(lambda: live.progress(MODEL, live.row(answer["id"])))
    service.end_soon(answer["id"])

    text = service.client.get(f"{answer['events_url']}&previews=true").text

    assert [kind for _, kind in _events(text)] == ["queued", "started", "progress", "preview", "final"]
    (shown,) = [block for block in text.split("\n\n") if block.startswith("event: preview")]
    assert json.loads(shown.partition("data: ")[2]) == {
        "step": 2,
        "steps": 8,
        "image": "data:image/jpeg;base64,YSBzbWFsbCBwaWN0dXJl",
    }
    told = [event for raw in service.world.topic(MODEL).events if isinstance(event := decode_event(raw), Watched)]
    assert [event.job_id for event in told] == [answer["id"]], "however often the stream looks, it is asked once"


def test_nobody_is_asked_for_previews_that_nobody_wants(service: GatewayService) -> None:
    answer = service.accepted()
    service.world.blobs[preview_key(answer["id"])] = (b"a small picture", 0.0)
    service.start(answer["id"], step=3, steps=8, preview=2)
    service.end_soon(answer["id"])

    kinds = [kind for _, kind in _events(service.client.get(answer["events_url"]).text)]

    assert "preview" not in kinds
    assert not any('"watched"' in raw for raw in service.world.topic(MODEL).events)


def test_preview_that_is_gone_already_is_left_out(service: GatewayService) -> None:
    answer = service.accepted()
    service.start(answer["id"], step=3, steps=8, preview=2)
    service.end_soon(answer["id"])

    kinds = [kind for _, kind in _events(service.client.get(f"{answer['events_url']}&previews=true").text)]

    assert kinds[-1] == "final"
    assert "preview" not in kinds


def test_unknown_wish_for_a_stream_is_told(service: GatewayService) -> None:
    answer = service.accepted()
    problem(service.client.get(f"{answer['events_url']}&preview=yes"), 422, "unknown-parameter")
