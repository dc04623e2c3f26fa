"""One list of conversations with a scripted service, held by the synchronous and the asynchronous client alike."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sfumato.client import (
    AlreadyEnded,
    AsyncClient,
    BadAnswer,
    Busy,
    Client,
    InvalidRequest,
    JobFailed,
    JobInfo,
    NotFound,
    Result,
    SfumatoError,
    TransientError,
    UnknownModel,
    Unreachable,
    WaitTimeout,
)
from tests.fake_service import job_json, problem

ID = "0190b0f0-0000-7000-8000-000000000001"
PICTURE = b"\x89PNG picture"
PNG = httpx.Response(200, content=PICTURE, headers={"Content-Type": "image/png"})


class Script:
    """A service that gives these answers in turn; a number before an answer is the seconds it takes."""

    def __init__(self, *answers: httpx.Response | type[Exception] | float) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.pauses_s: list[float] = []
        self.now_s = 100.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, float):
            self.now_s += answer
            answer = self._answers.pop(0)
        if isinstance(answer, httpx.Response):
            # A fresh one: httpx ties an answer to the shell that read it.
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
        assert isinstance(answer, type)
        raise answer("connection refused")

    @property
    def said(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]

    @property
    def spent(self) -> bool:
        return not self._answers

    def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_s += seconds

    async def async_sleep(self, seconds: float) -> None:
        self.sleep(seconds)

    def now(self) -> float:
        return self.now_s


Talk = Callable[[Script, Callable[[Any], Any]], Any]


def talk_sync(script: Script, say: Callable[[Any], Any]) -> Any:
    transport = httpx.MockTransport(script)
    with Client("http://service", transport=transport, sleep=script.sleep, now=script.now) as client:
        answer = say(client)
        return list(answer) if isinstance(answer, Iterator) else answer


def talk_async(script: Script, say: Callable[[Any], Any]) -> Any:
    async def talk() -> Any:
        transport = httpx.MockTransport(script)
        async with AsyncClient(
            "http://service", transport=transport, sleep=script.async_sleep, now=script.now
        ) as client:
            answer = say(client)
            return [each async for each in answer] if isinstance(answer, AsyncIterator) else await answer

    return asyncio.run(talk())


@pytest.fixture(params=[talk_sync, talk_async], ids=["Client", "AsyncClient"])
def talk(request: pytest.FixtureRequest) -> Talk:
    chosen: Talk = request.param
    return chosen


def accepted(code: int = 202, /, **changes: Any) -> httpx.Response:
    return httpx.Response(code, json=job_json(ID, **changes))


def ask_for_mosaic(client: Any) -> Any:
    return client.submit(PICTURE, "restyle", prompt="mosaic", strength=0.4, priority="high", metadata={"a": 1})


def test_submit_sends_picture_and_parameters_and_gives_the_access_link(talk: Talk) -> None:
    script = Script(accepted())
    job = talk(script, ask_for_mosaic)
    (request,) = script.requests
    assert request.url.path == "/api/diffusion"
    assert dict(request.url.params) == {
        "model_name": "restyle",
        "prompt": "mosaic",
        "strength": "0.4",
        "priority": "high",
        "metadata": '{"a": 1}',
    }
    assert b'name="image"' in request.content
    assert PICTURE in request.content
    assert job.result_url.endswith(f"/api/jobs/{ID}/result?token=t")
    assert not job.ended
    assert job.params == {"strength": 0.4}


def test_what_was_asked_is_known_after_a_short_answer(talk: Talk) -> None:
    links = {name: f"http://service/{name}" for name in ("result_url", "status_url")}
    job = talk(Script(httpx.Response(202, json={"id": ID, "status": "queued", **links})), ask_for_mosaic)
    assert (job.model_name, job.priority, job.prompt, job.metadata) == ("restyle", "high", "mosaic", {"a": 1})


def test_a_retry_sends_the_same_picture_with_the_same_idempotency_key(talk: Talk) -> None:
    overloaded = problem(503, "overloaded", headers={"Retry-After": "3"})
    script = Script(httpx.ConnectError, overloaded, problem(503, "try-again"), accepted())
    assert talk(script, ask_for_mosaic).id == ID
    assert len({request.headers["Idempotency-Key"] for request in script.requests}) == 1
    assert all(PICTURE in request.content for request in script.requests)
    assert script.pauses_s[1] == 3.0


def test_two_submissions_are_two_jobs_unless_the_caller_gives_the_key(talk: Talk) -> None:
    first, second, third = Script(accepted()), Script(accepted()), Script(accepted())
    talk(first, ask_for_mosaic)
    talk(second, ask_for_mosaic)
    talk(third, lambda client: client.submit(PICTURE, "restyle", idempotency_key="mine"))
    keys = [script.requests[0].headers["Idempotency-Key"] for script in (first, second, third)]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


def test_nobody_there_is_told_after_the_last_attempt(talk: Talk) -> None:
    script = Script(*[httpx.ConnectError] * 6)
    with pytest.raises(Unreachable, match="http://service"):
        talk(script, lambda client: client.models())
    assert script.spent
    assert 2.0 < sum(script.pauses_s) < 10.0


def test_a_full_queue_is_told_at_once_when_it_stays_full_for_long(talk: Talk) -> None:
    script = Script(problem(429, "backlog-full", headers={"Retry-After": "600"}))
    with pytest.raises(Busy) as caught:
        talk(script, ask_for_mosaic)
    assert caught.value.retry_after_s == 600
    assert script.pauses_s == []


@pytest.mark.parametrize(
    ("answer", "kind", "detail"),
    [
        (problem(404, "unknown-model", known_models=["restyle", "sd15"]), UnknownModel, "restyle, sd15"),
        (problem(404, "not-found", detail="no such job."), NotFound, "no such job"),
        (problem(422, "invalid-parameters", detail="strength is 7."), InvalidRequest, "strength is 7"),
        (problem(409, "already-ended", detail="it succeeded."), AlreadyEnded, "it succeeded"),
        (problem(500, "internal-error"), TransientError, "internal-error"),
        (httpx.Response(404, text="<html>nginx</html>"), BadAnswer, "Is a Sfumato service behind"),
        (httpx.Response(200, text="<html>hello</html>"), BadAnswer, "can't be read"),
        (httpx.Response(500, text="oops"), TransientError, "answered 500"),
    ],
)
def test_each_refusal_is_its_own_error(
    talk: Talk, answer: httpx.Response, kind: type[SfumatoError], detail: str
) -> None:
    with pytest.raises(kind, match=detail) as caught:
        talk(Script(answer), ask_for_mosaic)
    assert type(caught.value) is kind


def test_unknown_model_carries_the_known_ones(talk: Talk) -> None:
    with pytest.raises(UnknownModel) as caught:
        talk(Script(problem(404, "unknown-model", known_models=["restyle"])), ask_for_mosaic)
    assert caught.value.known == ("restyle",)


def test_result_asks_again_when_retry_after_says(talk: Talk) -> None:
    later = accepted()
    later.headers["Retry-After"] = "7"
    script = Script(accepted(200), later, PNG)
    picture = talk(script, lambda client: client.result(ID))
    assert (picture.data, picture.media_type, picture.suffix) == (PICTURE, "image/png", ".png")
    assert script.pauses_s == [7.0]
    assert script.requests[1].headers["Prefer"] == "wait=20"
    assert script.requests[1].extensions["timeout"]["read"] == 30 + 20


def test_result_asks_again_at_once_when_the_answer_was_held_back(talk: Talk) -> None:
    script = Script(accepted(200), 20.0, accepted(), 5.0, PNG)
    talk(script, lambda client: client.result(ID))
    assert script.pauses_s == []


def test_no_result_is_an_error_that_says_why(talk: Talk) -> None:
    script = Script(accepted(200), problem(410, "job-canceled", detail="it was canceled."))
    with pytest.raises(JobFailed, match="it was canceled") as caught:
        talk(script, lambda client: client.result(ID))
    assert caught.value.case == "job-canceled"


def test_wait_asks_the_link_then_reads_how_it_ended(talk: Talk) -> None:
    script = Script(accepted(200), httpx.Response(410), accepted(200, status="failed"))
    job = talk(script, lambda client: client.wait(ID))
    assert job.status == "failed"
    assert script.said[1:] == [f"HEAD /api/jobs/{ID}/result?token=t", f"GET /api/jobs/{ID}?token=t"]


def test_wait_for_an_ended_job_asks_once(talk: Talk) -> None:
    script = Script(accepted(200, status="canceled"))
    assert talk(script, lambda client: client.wait(ID)).ended
    assert script.spent


@pytest.mark.parametrize("verb", ["wait", "result"])
def test_waiting_ends_with_the_callers_timeout(talk: Talk, verb: str) -> None:
    script = Script(accepted(200), *[accepted()] * 20)
    with pytest.raises(WaitTimeout, match="It goes on"):
        talk(script, lambda client: getattr(client, verb)(ID, timeout_s=2.5))
    assert sum(script.pauses_s) == pytest.approx(2.5)


def test_watch_ends_with_the_callers_timeout(talk: Talk) -> None:
    script = Script(*[accepted(200)] * 20)
    with pytest.raises(TimeoutError):
        talk(script, lambda client: client.watch(ID, timeout_s=1.1))
    assert sum(script.pauses_s) == pytest.approx(1.1)


def test_watch_gives_each_change_once_until_the_end(talk: Talk) -> None:
    running = accepted(200, status="running", progress={"step": 1, "steps": 4})
    script = Script(accepted(200), accepted(200), running, accepted(200, status="succeeded"))
    seen = talk(script, lambda client: client.watch(ID))
    assert [job.status for job in seen] == ["queued", "running", "succeeded"]
    assert seen[1].progress.steps == 4


def test_watch_looks_less_often_at_a_job_that_takes_long(talk: Talk) -> None:
    far = accepted(200, estimate={"position": 40, "eta_s": 12.0})
    script = Script(far, accepted(200, status="succeeded"))
    talk(script, lambda client: client.watch(ID))
    assert script.pauses_s == [3.0]


def test_generate_sends_waits_and_fetches(talk: Talk) -> None:
    script = Script(accepted(200, status="succeeded"), PNG)
    picture = talk(script, lambda client: client.generate(PICTURE, "restyle", prompt="neon", timeout_s=9))
    assert picture.data == PICTURE
    assert [request.headers.get("Prefer") for request in script.requests] == ["wait=9", "wait=9"]


@pytest.mark.parametrize("timeout_s", [0.9, 1.5, 2.5])
def test_generate_waits_as_long_as_the_caller_says(talk: Talk, timeout_s: float) -> None:
    held = [float(int(timeout_s))] if timeout_s >= 1 else []
    later = accepted()
    later.headers["Retry-After"] = "1"
    script = Script(*held, accepted(), *[later] * 9)
    begin_s = script.now()
    with pytest.raises(WaitTimeout):
        talk(script, lambda client: client.generate(PICTURE, "restyle", timeout_s=timeout_s))
    assert script.now() - begin_s == pytest.approx(timeout_s)


@pytest.mark.parametrize("verb", ["job", "wait", "result"])
def test_links_that_begin_with_a_public_address_are_asked_at_the_clients_own(talk: Talk, verb: str) -> None:
    public = JobInfo.model_validate(job_json(ID, "https://pictures.example/sfumato"))
    ended = accepted(200, status="succeeded")
    script = Script(PNG if verb != "job" else ended, ended)
    talk(script, lambda client: getattr(client, verb)(public))
    assert {str(request.url).partition("?")[0].removesuffix("/result") for request in script.requests} == {
        f"http://service/api/jobs/{ID}"
    }
    assert {request.url.params["token"] for request in script.requests} == {"t"}


def test_pages_are_fetched_one_after_the_other_only_as_needed(talk: Talk) -> None:
    pages = [httpx.Response(200, json={"jobs": [job_json(ID)] * n, "next": "c1"}) for n in (2, 1)]
    script = Script(*pages)
    found = talk(script, lambda client: client.jobs(model_name="restyle", status="failed", limit=3))
    assert len(found) == 3
    assert script.said == [
        "GET /api/jobs?model_name=restyle&status=failed&limit=3",
        "GET /api/jobs?model_name=restyle&status=failed&cursor=c1&limit=1",
    ]


def test_the_last_page_ends_the_list(talk: Talk) -> None:
    script = Script(
        httpx.Response(200, json={"jobs": [job_json(ID)], "next": "c1"}),
        httpx.Response(200, json={"jobs": [job_json(ID)], "next": None}),
    )
    assert len(talk(script, lambda client: client.jobs())) == 2


def test_cancel_gives_the_canceled_job(talk: Talk) -> None:
    script = Script(accepted(200, status="canceled"))
    assert talk(script, lambda client: client.cancel(ID)).status == "canceled"
    assert script.said == [f"POST /api/jobs/{ID}/cancel"]


def test_delete_asks_for_nothing_back(talk: Talk) -> None:
    script = Script(httpx.Response(204))
    assert talk(script, lambda client: client.delete(ID)) is None
    assert script.said == [f"DELETE /api/jobs/{ID}"]


def test_an_id_cannot_name_another_address(talk: Talk) -> None:
    script = Script(problem(404, "not-found"))
    with pytest.raises(NotFound):
        talk(script, lambda client: client.job("../models?x=1"))
    assert script.said == ["GET /api/jobs/..%2Fmodels%3Fx%3D1"]


def test_models_come_with_rules_and_backlog(talk: Talk) -> None:
    body = {"models": [{"name": "restyle", "state": "ready", "rules": {"strength": 0.4}, "backlog": {"waiting": 3}}]}
    (model,) = talk(Script(httpx.Response(200, content=json.dumps(body))), lambda client: client.models())
    assert (model.name, model.backlog.waiting, model.rules["strength"]) == ("restyle", 3, 0.4)


def test_a_picture_may_be_a_path_bytes_or_an_open_file(talk: Talk, tmp_path: Path) -> None:
    path = tmp_path / "boat.png"
    path.write_bytes(PICTURE)
    named = {"boat.png": (path, str(path)), "image": (PICTURE, io.BytesIO(PICTURE))}
    for name, sources in named.items():
        for source in sources:
            script = Script(accepted())
            talk(script, lambda client, source=source: client.submit(source, "restyle"))  # type: ignore[misc]
            assert PICTURE in script.requests[0].content
            assert f'filename="{name}"'.encode() in script.requests[0].content
            assert b"Content-Type: application/octet-stream" in script.requests[0].content


@pytest.mark.parametrize("source", [None, io.StringIO("text"), 7])
def test_what_is_no_picture_source_is_told_before_anything_is_sent(talk: Talk, source: Any) -> None:
    with pytest.raises(InvalidRequest, match="a path, the picture's bytes, or a file opened in binary mode"):
        talk(Script(), lambda client: client.submit(source, "restyle"))


def test_metadata_that_is_no_json_is_told_before_anything_is_sent(talk: Talk) -> None:
    with pytest.raises(InvalidRequest, match="metadata can't be written as JSON"):
        talk(Script(), lambda client: client.submit(PICTURE, "restyle", metadata={"a": object()}))


def test_a_missing_file_is_told_before_anything_is_sent(talk: Talk, tmp_path: Path) -> None:
    script = Script()
    with pytest.raises(InvalidRequest, match="No such file"):
        talk(script, lambda client: client.submit(tmp_path / "none.png", "restyle"))
    assert script.requests == []


def test_a_result_is_saved_with_its_own_ending(tmp_path: Path, talk: Talk) -> None:
    picture = talk(Script(accepted(200), PNG), lambda client: client.result(ID))
    saved = picture.save(tmp_path / "new" / "boat")
    assert saved == tmp_path / "new" / "boat.png"
    assert saved.read_bytes() == PICTURE


RESULT = Result(PICTURE, "image/png", ID)


def test_a_result_shows_its_size_not_its_bytes() -> None:
    assert repr(RESULT) == f"Result(data=<12 bytes>, media_type='image/png', job_id='{ID}')"


@pytest.mark.parametrize(
    ("path", "saved"),
    [
        ("boat", "boat.png"),
        ("boat.v2", "boat.v2.png"),
        ("boat.PNG", "boat.PNG"),
        ("new/", f"new/{ID}.png"),
        ("there", f"there/{ID}.png"),
        ("there/", f"there/{ID}.png"),
    ],
)
def test_a_result_is_saved_where_the_path_says(tmp_path: Path, path: str, saved: str) -> None:
    (tmp_path / "there").mkdir()
    assert RESULT.save(f"{tmp_path}/{path}") == tmp_path / saved
    assert (tmp_path / saved).read_bytes() == PICTURE


@pytest.mark.parametrize("name", ["boat.jpg", "boat.webp", "boat.gif"])
def test_a_result_is_not_saved_as_what_it_is_not(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"would hold image/png; name it boat\.png"):
        RESULT.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://[::1", ""])
def test_an_address_that_is_none_is_told_at_once(url: str) -> None:
    with pytest.raises(InvalidRequest, match="http://127"):
        Client(url)


def test_a_stream_may_be_left_early() -> None:
    script = Script(httpx.Response(200, json={"jobs": [job_json(ID)] * 2, "next": "c1"}))
    with Client("http://service", transport=httpx.MockTransport(script)) as client:
        assert next(client.jobs()).id == ID
    assert len(script.requests) == 1
