"""The verbs and client methods about webhooks, against a service in memory."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from sfumato.cli import main
from sfumato.client import AsyncClient, Client, InvalidRequest, NotFound, TransientError
from tests.fake_service import FakeService

Run = Callable[..., int]
HOOK = "https://example.com/hook"


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def run(service: FakeService) -> Run:
    return lambda *arguments: main([str(word) for word in arguments], transport=httpx.MockTransport(service))


@pytest.fixture
def client(service: FakeService) -> Client:
    return Client(transport=httpx.MockTransport(service))


# For one job


@pytest.mark.parametrize("events", ["succeeded,failed", ["succeeded", "failed"], ("succeeded", "failed")])
def test_submit_names_who_is_told(client: Client, service: FakeService, events: str) -> None:
    job = client.submit(b"picture", "restyle", prompt="neon", webhook_url=HOOK, webhook_events=events)
    asked = service.requests[-1].url.params
    assert (asked["webhook_url"], asked["webhook_events"]) == (HOOK, "succeeded,failed")
    assert job.params == {}, "where a job is told of is no parameter of the picture"


def test_submit_without_webhook_says_nothing_of_it(client: Client, service: FakeService) -> None:
    client.submit(b"picture", "restyle", prompt="neon", webhook_url=None, webhook_events=None)
    assert not any("webhook" in name for name in service.requests[-1].url.params)


def test_every_picture_of_a_folder_is_told_of(run: Run, service: FakeService, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"picture")
    options = ["--webhook-url", HOOK, "--webhook-events", "failed"]
    assert run("submit", tmp_path, "--model", "restyle", "--prompt", "neon", *options) == 0
    sent = [request.url.params for request in service.requests if request.method == "POST"]
    assert [(asked["webhook_url"], asked["webhook_events"]) for asked in sent] == [(HOOK, "failed")] * 2


# For all jobs


def test_address_is_added_listed_rotated_and_removed(
    run: Run, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("webhooks", "list") == 0
    assert capsys.readouterr().out == "no webhooks\n"

    assert run("webhooks", "add", HOOK, "--events", "succeeded, failed") == 0
    told = capsys.readouterr()
    assert told.out == "ep_0  whsec_first\n"
    assert "shown once" in told.err
    assert json.loads(service.requests[-1].content) == {"url": HOOK, "events": ["succeeded", "failed"]}

    assert run("webhooks", "list") == 0
    assert capsys.readouterr().out == f"ep_0  {HOOK}  succeeded,failed  good\n"

    assert run("webhooks", "rotate", "ep_0", "--overlap", "12h") == 0
    assert capsys.readouterr().out == "ep_0  whsec_new\n"
    assert json.loads(service.requests[-1].content) == {"overlap_s": 43_200.0}

    assert run("webhooks", "remove", "ep_0") == 0
    assert service.hooks.made == {}
    assert run("webhooks", "remove", "ep_0") == 1
    assert "No endpoint has this id" in capsys.readouterr().err


def test_json_has_what_the_service_told_and_no_more(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("webhooks", "add", HOOK, "--json") == 0
    added = json.loads(capsys.readouterr().out)
    assert (added["secret"], len(added["events"])) == ("whsec_first", 5)
    assert run("webhooks", "rotate", "ep_0", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"id": "ep_0", "secret": "whsec_new"}
    assert run("webhooks", "list", "--json") == 0
    assert "secret" not in json.loads(capsys.readouterr().out)


def test_refused_address_is_told_with_the_services_reason(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("webhooks", "add", "http://10.0.0.1/") == 1
    assert "The webhook's address is refused." in capsys.readouterr().err


def test_adding_is_not_tried_again_where_it_may_have_been_done(service: FakeService) -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        service(request)
        raise httpx.ReadTimeout("no answer")

    client = Client(transport=httpx.MockTransport(lost), sleep=lambda _: None)
    with pytest.raises(TransientError):
        client.add_webhook(HOOK)
    assert len(service.hooks.made) == 1


def test_adding_is_tried_again_where_it_was_not_done_for_sure(service: FakeService) -> None:
    answers = [httpx.Response(429, headers={"Retry-After": "1"})]

    def busy(request: httpx.Request) -> httpx.Response:
        return answers.pop() if answers else service(request)

    assert Client(transport=httpx.MockTransport(busy), sleep=lambda _: None).add_webhook(HOOK, "failed").id == "ep_0"


def test_secrets_of_single_jobs_are_one_a_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("webhooks", "secrets") == 0
    assert capsys.readouterr().out == "whsec_mine\nwhsec_before\n"


# What was told


def test_deliveries_are_listed_page_by_page(client: Client, service: FakeService) -> None:
    for number in range(150):
        service.hooks.deliver(f"msg_{number}")
    service.hooks.deliver("msg_good", state="delivered", last_status=204, last_error=None)
    assert [each.id for each in client.deliveries(state="given_up")] == [f"msg_{n}" for n in reversed(range(150))]
    assert [each.id for each in client.deliveries(limit=1)] == ["msg_good"]
    assert list(client.deliveries(job_id="another")) == []


def test_deliveries_are_one_a_line_with_what_went_wrong(
    run: Run, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("webhooks", "deliveries") == 0
    assert capsys.readouterr().out == "no deliveries\n"
    service.hooks.deliver("msg_0", state="delivered")
    service.hooks.deliver("msg_1", state="pending", attempts=2, next_attempt_at="2026-01-02T04:04:05.006Z")
    assert run("webhooks", "deliveries", "--state", "pending", "--job", "0190b0f0-0000-7000-8000-000000000000") == 0
    (line,) = capsys.readouterr().out.splitlines()
    for part in ("msg_1", "succeeded", "pending", " 2 ", "500", "it answered 500", "next 01-02 04:04:05", HOOK):
        assert part in line


def test_redeliver_goes_on_after_one_that_is_unknown(
    run: Run, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.hooks.deliver("msg_1")
    assert run("webhooks", "redeliver", "msg_0", "msg_1") == 1
    told = capsys.readouterr()
    assert told.out == "msg_1 pending\n"
    assert "msg_0: No delivery has this id" in told.err


def test_async_client_does_the_same(service: FakeService) -> None:
    service.hooks.deliver("msg_1")

    async def all_of_it() -> None:
        async with AsyncClient(transport=httpx.MockTransport(service)) as client:
            made = await client.add_webhook(HOOK, ["failed"])
            assert (await client.webhooks())[0].id == made.id
            assert (await client.rotate_webhook(made)).secret == "whsec_new"
            assert [each.id async for each in client.deliveries()] == ["msg_1"]
            assert await client.webhook_secrets() == ("whsec_mine", "whsec_before")
            assert (await client.redeliver("msg_1")).state == "pending"
            await client.remove_webhook(made)
            with pytest.raises(NotFound):
                await client.remove_webhook(made)
            with pytest.raises(InvalidRequest):
                await client.add_webhook("http://10.0.0.1/")
            assert await client.count_jobs(status="failed") == 0

    asyncio.run(all_of_it())
