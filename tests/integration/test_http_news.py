"""GET /api/events: all jobs of an owner in one stream, from where a client was, on any gateway."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from sfumato.core.job import State, preview_key
from sfumato.gateway import news, newsroom, sse
from tests.integration.gateway_service import GatewayService, OpenStream, gateway_service, problem
from tests.support import poll


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    with gateway_service(tmp_path, auth="keys") as gateway:
        yield gateway


def stream(service: GatewayService, headers: dict[str, str], after: str = "", query: str = "") -> OpenStream:
    return OpenStream(service, f"/api/events{query}", headers | ({"Last-Event-ID": after} if after else {}))


def kinds(stream: OpenStream, job_id: str) -> list[str]:
    return [kind for kind, _, data in stream.events() if data.get("job_id") == job_id]


def places(stream: OpenStream) -> list[str]:
    """The ids of what happened, without that of the beginning."""
    return [place for kind, place, _ in stream.events() if place and kind not in ("open", "reset")]


def arrived(stream: OpenStream, count: int) -> bool:
    return len(places(stream)) == count


def test_jobs_of_an_owner_are_told_of_in_one_stream_and_nobody_elses(service: GatewayService) -> None:
    alice, bob = service.key("alice"), service.key("bob")
    with stream(service, alice) as told:
        poll(told.events)
        first, others, second = (service.accepted(headers=who)["id"] for who in (alice, bob, alice))
        service.fold()
        for job_id in (first, others):
            service.start(job_id)
            service.end(job_id)
        service.fold()

        poll(lambda: kinds(told, first) == ["queued", "started", "final"])

        assert told.events()[0][0] == "open"
        assert kinds(told, second) == ["queued"]
        assert kinds(told, others) == []
        (final,) = [data for kind, _, data in told.events() if kind == "final"]
        assert (final["id"], final["status"]) == (first, "succeeded")
        assert "token=" in final["result_url"]


def test_client_that_comes_back_gets_what_it_missed_once(service: GatewayService) -> None:
    alice = service.key("alice")
    with stream(service, alice) as told:
        poll(told.events)
        begin = told.events()[0][1]
    first, second = (service.accepted(headers=alice)["id"] for _ in range(2))
    service.fold()
    service.start(first)
    service.end(first, State.FAILED)
    service.fold()

    with stream(service, alice, after=begin) as told:
        poll(partial(arrived, told, 4))
        assert (kinds(told, first), kinds(told, second)) == (["queued", "started", "final"], ["queued"])
        all_of_it = places(told)
        service.end(second)
        service.fold()
        poll(partial(arrived, told, 5))

    for number, place in enumerate(all_of_it, 1):
        with stream(service, alice, after=place) as told:
            poll(partial(arrived, told, 5 - number))
            assert places(told)[:-1] == all_of_it[number:]


def test_admin_sees_everybodys_jobs_or_one_owners(service: GatewayService) -> None:
    alice, bob, admin = service.key("alice"), service.key("bob"), service.key("root", "admin")
    with stream(service, admin) as everybody, stream(service, admin, query="?owner=bob") as bobs:
        poll(everybody.events)
        poll(bobs.events)
        ids = [service.accepted(headers=who)["id"] for who in (alice, bob)]
        service.fold()

        poll(lambda: [kinds(everybody, job_id) for job_id in ids] == [["queued"], ["queued"]])
        poll(lambda: kinds(bobs, ids[1]) == ["queued"])
        assert kinds(bobs, ids[0]) == []
    problem(service.client.get("/api/events?owner=bob", headers=alice), 403, "forbidden")
    problem(service.client.get("/api/events"), 401, "unauthorized")


def test_progress_places_and_previews_come_beside(service: GatewayService) -> None:
    alice = service.key("alice")
    running, waiting = (service.accepted(headers=alice)["id"] for _ in range(2))
    service.world.blobs[preview_key(running)] = (b"a small picture", 0.0)
    service.start(running, step=3, steps=8, preview=2)
    service.fold()
    service.stand(waiting=1, front=(waiting,), front_costs=(1,))

    with stream(service, alice, query="?previews=true") as told:
        poll(lambda: kinds(told, running) == ["progress", "preview"] and kinds(told, waiting) == ["waiting"])
        data = {kind: data for kind, _, data in told.events()}

    assert data["progress"] == {"job_id": running, "step": 3, "steps": 8}
    assert data["preview"]["image"].startswith("data:image/jpeg;base64,")
    assert data["waiting"]["position"] == 1
    assert not any(place for kind, place, _ in told.events() if kind != "open"), "what is live only has no id"


def test_client_that_was_away_for_too_long_is_told_so(service: GatewayService) -> None:
    service.world.news_gone = 7
    for after, kind in (("6", "reset"), ("7", "open")):
        with stream(service, service.key("alice"), after=after) as told:
            poll(told.events)
            assert told.events()[0][0] == kind


def test_idle_client_is_kept_up_with_what_others_do(service: GatewayService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one for whom nothing happened in an hour would be told that it missed something."""
    monkeypatch.setattr(sse, "SIGN_OF_LIFE_S", 0.0)
    monkeypatch.setattr(news, "LOOK_AT_KEY_S", 0.05)
    alice, bob = service.key("alice"), service.key("bob")
    with stream(service, alice) as told:
        poll(told.events)
        service.accepted(headers=bob)
        service.fold()
        newest = service.world.news[-1][0].number
        poll(lambda: told.last_id == str(newest))
        assert len(told.events()) == 1


@pytest.mark.parametrize("told", ["x", "-1", "1-2", "9" * 40])
def test_id_of_another_stream_is_refused(service: GatewayService, told: str) -> None:
    response = service.client.get("/api/events", headers=service.key() | {"Last-Event-ID": told})
    assert "Last-Event-ID" in problem(response, 422, "invalid-parameters")["detail"]


def test_stream_ends_when_its_key_is_revoked(service: GatewayService) -> None:
    with stream(service, service.key("alice")) as told:
        poll(told.events)
        assert service.client.portal is not None
        service.keys.kept.clear()
        service.read_keys()
        service.client.portal.call(service.app.state.gateway.newsroom.ring_all)
        poll(lambda: told.ended)


def test_stream_ends_with_its_gateway(service: GatewayService) -> None:
    with stream(service, service.key("alice")) as told:
        poll(told.events)
        assert service.client.portal is not None
        service.client.portal.call(service.app.state.gateway.stopping.set)
        service.client.portal.call(service.app.state.gateway.newsroom.ring_all)
        poll(lambda: told.ended)


def test_while_the_database_is_away_the_stream_does_not_begin(service: GatewayService) -> None:
    alice = service.key("alice")
    service.faults.failing.add("settled")
    problem(service.client.get("/api/events", headers=alice), 503, "try-again")


def test_outage_in_mid_stream_loses_nothing(service: GatewayService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newsroom, "PAUSE_S", 0.05)
    asked: list[str] = []
    alice = service.key("alice")
    with stream(service, alice) as told:
        poll(told.events)
        service.faults.failing.add("news")
        service.faults.asked = asked
        job_id = service.accepted(headers=alice)["id"]
        service.fold()
        poll(lambda: asked.count("news") > 1)
        assert kinds(told, job_id) == []
        service.faults.failing.clear()
        poll(lambda: kinds(told, job_id) == ["queued"])


def test_client_too_slow_for_what_happens_is_sent_away(
    service: GatewayService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newsroom, "KEPT", 3)
    alice = service.key("alice")
    with stream(service, alice) as told:
        poll(told.events)
        for _ in range(5):
            service.accepted(headers=alice)
        service.fold()
        poll(lambda: told.ended)


def test_nobody_reads_for_nobody(service: GatewayService) -> None:
    alice, asked = service.key("alice"), list[str]()
    with stream(service, alice) as told:
        poll(told.events)
    service.faults.asked = asked
    service.accepted(headers=alice)
    service.fold()
    assert "settled" not in asked
    with stream(service, alice) as told:
        poll(lambda: asked.count("settled") > 2)
