"""Replicate's protocol over HTTP: what is taken and refused, how predictions, models and files are shown."""

import asyncio
import base64
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sfumato.core.job import State, model_slug
from sfumato.core.params import Sampler
from sfumato.core.pictures import UPLOAD_KEEP_S
from sfumato.gateway.compat.replicate.files import FILES_A_PAGE
from sfumato.gateway.compat.replicate.predictions import PREDICTIONS_A_PAGE
from sfumato.recorder.sweep import Sweep, promised
from tests.integration.gateway_service import MODEL, GatewayService, gateway_service, problem
from tests.sample_pictures import picture
from tests.simulation.memory import MemoryBlobs, MemoryBroker, MemoryOutcomes, MemoryRows
from tests.support import poll

DATA_URL = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
LISTED = """
[models.quick]
backend = "simulated"

[models."a b:c"]
backend = "simulated"
summary = "Odd in name alone."

[models."acme/style"]
backend = "simulated"
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    with gateway_service(tmp_path, LISTED) as gateway:
        yield gateway


def create(service: GatewayService, given: dict[str, Any] | None = None, **asked: Any) -> Any:
    """POST /v1/predictions of the model quick with a picture and a prompt, unless told otherwise."""
    headers = asked.pop("headers", None)
    body = {"version": MODEL, "input": {"image": DATA_URL, "prompt": "neon"} | (given or {})} | asked
    return service.client.post("/v1/predictions", json=body, headers=headers)


def created(service: GatewayService, given: dict[str, Any] | None = None, **asked: Any) -> dict[str, Any]:
    answer = create(service, given, **asked)
    assert answer.status_code == 201, answer.text
    prediction: dict[str, Any] = answer.json()
    return prediction


def upload(service: GatewayService, data: bytes | None = None, media_type: str = "image/png", **fields: str) -> Any:
    """POST /v1/files of a picture called in.png."""
    headers = service.key(fields.pop("owner")) if "owner" in fields else None
    files = {"content": ("in.png", picture() if data is None else data, media_type)}
    return service.client.post("/v1/files", files=files, data=fields, headers=headers)


def get(service: GatewayService, path: str) -> dict[str, Any]:
    answer = service.client.get(path)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_prediction_is_an_ordinary_job(service: GatewayService) -> None:
    asked = {
        "negative_prompt": "dark",
        "prompt_strength": 0.5,
        "num_inference_steps": 12,
        "guidance_scale": 1.5,
        "seed": 7,
        "scheduler": "DDIM",
        "width": 128,
        "height": 64,
        "resize_mode": "fill",
        "output_format": "jpg",
        "priority": "low",
        "metadata": {"order": 7},
        "num_outputs": 1,
    }
    shown = created(service, asked)

    (job,) = service.published()
    assert (job.id, job.protocol, job.priority, job.metadata) == (shown["id"], "replicate", "low", {"order": 7})
    params = job.params
    assert (params.prompt, params.negative_prompt, params.strength, params.num_inference_steps) == (
        *("neon", "dark", 0.5, 12),
    )
    assert (params.guidance_scale, params.seed, params.sampler, params.resize_mode) == (1.5, 7, Sampler.DDIM, "fill")
    assert (params.width, params.height, params.exact, params.output_format) == (128, 64, True, "jpeg")
    del asked["num_outputs"]
    image = f"http://testserver/api/jobs/{job.id}/input"
    assert shown["input"] == asked | {"prompt": "neon", "image": image}


def test_a_prediction_that_waits_has_all_members(service: GatewayService) -> None:
    shown = created(service)

    here = f"http://testserver/v1/predictions/{shown['id']}"
    assert shown["urls"] == {"get": here, "cancel": f"{here}/cancel"}
    assert shown["model"] == "sfumato/quick"
    assert re.fullmatch(r"[0-9a-f]{64}", shown["version"])
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", shown["created_at"])
    fixed = ("status", "output", "error", "logs", "metrics", "started_at", "completed_at", "data_removed", "source")
    assert [shown[name] for name in fixed] == ["starting", None, None, "", {}, None, None, False, "api"]
    service.record()
    assert get(service, f"/v1/predictions/{shown['id']}") == shown


def test_a_prediction_that_runs_tells_its_progress_as_clients_read_it(service: GatewayService) -> None:
    shown = created(service)
    service.start(shown["id"], step=6, steps=12)
    path = f"/v1/predictions/{shown['id']}"
    running = poll(lambda: next((seen for seen in [get(service, path)] if seen["logs"]), None))

    assert (running["status"], running["logs"]) == ("processing", " 50%|█████     | 6/12")
    assert running["started_at"]


def test_a_prediction_that_ended_has_its_picture_and_how_long_it_took(service: GatewayService) -> None:
    shown = created(service, {"num_inference_steps": 10, "prompt_strength": 0.5})
    service.start(shown["id"])
    service.end(shown["id"])
    service.fold()
    ended = get(service, f"/v1/predictions/{shown['id']}")

    assert (ended["status"], ended["logs"], ended["error"]) == ("succeeded", "100%|██████████| 5/5", None)
    assert ended["metrics"].keys() == {"total_time", "predict_time"}
    assert ended["metrics"]["total_time"] >= ended["metrics"]["predict_time"] >= 0
    assert ended["completed_at"] >= ended["started_at"] >= ended["created_at"]
    (output,) = ended["output"]
    assert service.client.get(output).content == b"the picture"


def test_a_prediction_that_failed_says_why(service: GatewayService) -> None:
    shown = created(service)
    service.end(shown["id"], State.FAILED)
    service.fold()
    failed = get(service, f"/v1/predictions/{shown['id']}")

    assert (failed["status"], failed["output"], failed["logs"]) == ("failed", None, "")
    assert failed["error"] == "The picture can't be decoded: It is cut off."


class LinkedBlobs(MemoryBlobs):
    """A store that clients reach."""

    async def get_link(self, key: str, lifetime_s: float) -> str | None:
        return f"https://store.example/{key}?for={lifetime_s:g}"


def test_where_links_lead_into_the_store_the_output_does(tmp_path: Path) -> None:
    more = {"s3_public_url": "https://store.example", "s3_bucket": "b"}
    with gateway_service(tmp_path, LISTED, LinkedBlobs, result_delivery="redirect", **more) as service:
        shown = created(service)
        outcome = service.end(shown["id"])
        service.fold()

        assert outcome.picture is not None
        seen = get(service, f"/v1/predictions/{shown['id']}")
        assert seen["output"] == [f"https://store.example/{outcome.picture.key}?for=3600"]


def soon(act: Callable[[], object]) -> None:
    """Do it a moment from now, while a request is under way."""
    threading.Timer(0.2, act).start()


def jobs_of(service: GatewayService) -> list[str]:
    """The ids of the jobs that came, once some did."""
    found: list[str] = poll(lambda: [job.id for job in service.published()])
    return found


@pytest.mark.parametrize("prefer", ["wait", "wait=2", "respond-async, wait"])
def test_a_create_that_waits_answers_with_the_end(service: GatewayService, prefer: str) -> None:
    soon(lambda: [service.end(each) for each in jobs_of(service)])
    answer = create(service, headers={"Prefer": prefer})

    assert (answer.status_code, answer.json()["status"]) == (201, "succeeded")
    assert answer.headers["preference-applied"] == "wait=2"


def test_a_create_whose_wait_ran_out_is_starting_even_if_it_runs(tmp_path: Path) -> None:
    # The client takes any other status for the end of a wait.
    with gateway_service(tmp_path, LISTED, max_wait_s=0.6) as service:
        soon(lambda: service.start(jobs_of(service)[0]))
        answer = create(service, headers={"Prefer": "wait"})
        path = f"/v1/predictions/{answer.json()['id']}"

        assert (answer.status_code, answer.json()["status"], answer.json()["started_at"]) == (202, "starting", None)
        assert poll(lambda: get(service, path)["status"] == "processing")


def test_the_same_idempotency_key_is_the_same_prediction(service: GatewayService) -> None:
    headers = {"Idempotency-Key": "k"}
    first = created(service, headers=headers)
    service.end(first["id"])
    again = created(service, headers=headers)

    assert (again["id"], again["status"]) == (first["id"], "succeeded")
    problem(create(service, {"prompt": "night"}, headers=headers), 422, "idempotency-mismatch")


def version_of(service: GatewayService, model: str) -> str:
    found: str = service.app.state.gateway.registry.version_of(model)
    return found


@pytest.mark.parametrize(
    ("given", "model"),
    [
        ("quick", "quick"),
        ("sfumato/quick", "quick"),
        ("acme/style", "acme/style"),
        ("a b:c", "a b:c"),
        ("sfumato/a b:c", "a b:c"),
        ("sfumato/a%20b%3Ac", "a b:c"),
        ("VERSION", "acme/style"),
        ("acme/style:VERSION", "acme/style"),
        ("style:VERSION", None),
        ("acme/style:" + "0" * 64, None),
        ("sfumato/style", None),
        ("0" * 64, None),
    ],
)
def test_version_names_a_model_in_many_ways(service: GatewayService, given: str, model: str | None) -> None:
    answer = create(service, version=given.replace("VERSION", version_of(service, "acme/style")))
    if model is None:
        told = problem(answer, 404, "unknown-model")
        assert told["known_models"] == ["sfumato/quick", "sfumato/a%20b%3Ac", "acme/style"]
        return
    assert answer.status_code == 201, answer.text
    assert [job.model for job in service.published(model_slug(model))] == [model]


@pytest.mark.parametrize(
    ("path", "model"),
    [("sfumato/quick", "quick"), ("acme/style", "acme/style"), ("sfumato/a%20b%3Ac", "a b:c")],
)
def test_the_address_names_a_model(service: GatewayService, path: str, model: str) -> None:
    body = {"input": {"image": DATA_URL}}
    answer = service.client.post(f"/v1/models/{path}/predictions", json=body)

    assert answer.status_code == 201, answer.text
    assert answer.json()["model"] == path
    assert [job.model for job in service.published(model_slug(model))] == [model]


@pytest.mark.parametrize(
    ("given", "slug", "words"),
    [
        ({"image": None}, "invalid-parameters", "image is missing"),
        ({"image": "cat.png"}, "missing-image", "neither an upload's id nor a data URL"),
        ({"image": "https://a.example/cat.png"}, "bad-image-url", "fetches no pictures"),
        ({"mask": DATA_URL}, "unknown-parameter", "this service changes whole pictures"),
        ({"cfg": 3}, "unknown-parameter", "cfg is not known here. Known are: image, prompt,"),
        ({"prompt_strength": 3}, "invalid-parameters", "prompt_strength is 3.0; it must be above 0"),
        ({"strength": 3}, "invalid-parameters", "prompt_strength is 3.0; it must be above 0"),
        ({"num_outputs": 2}, "invalid-parameters", "num_outputs is '2'; it must be 1"),
        ({"seed": -1}, "invalid-parameters", "seed is -1"),
        ({"scheduler": "K_EULR"}, "invalid-parameters", "'K_EULR' is none of this model's. Closest to it: K_EULER, "),
        (
            {"scheduler": "flow_match_euler"},
            "invalid-parameters",
            "scheduler 'flow_match_euler' is none of this model's",
        ),
        ({"width": 64}, "invalid-parameters", "give both width and height"),
        ({"metadata": 7}, "invalid-parameters", "metadata is '7'; it must be a JSON object"),
        ({"priority": "soon"}, "invalid-parameters", "priority is 'soon'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_the_words_of_the_caller(
    service: GatewayService, given: dict[str, Any], slug: str, words: str
) -> None:
    told = problem(create(service, given), 422, slug)

    assert words in told["detail"], told
    assert service.published() == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"version": None}, "version"),
        ({"input": None}, "input"),
        ({"model": "quick"}, "model is not known here"),
        ({"webhook_events_filter": ["begin"]}, "webhook_events_filter"),
        ({"webhook_events_filter": ["completed"]}, "webhook_events_filter says what to send, webhook must say where"),
        ({"webhook": "http://1.2.3.4/", "webhook_events_filter": ["logs"]}, "logs alone"),
        ({"webhook": "http://1.2.3.4/", "webhook_completed": "http://1.2.3.5/"}, "two addresses"),
        ({"webhook": "http://127.0.0.1/"}, "The webhook's address is refused"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(service: GatewayService, asked: dict[str, Any], words: str) -> None:
    answer = create(service, **asked)

    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"], answer.text


def test_a_body_that_is_no_json_is_refused(service: GatewayService) -> None:
    problem(service.client.post("/v1/predictions", content=b"{"), 400, "bad-json")


def test_what_programs_send_to_other_models_is_taken(service: GatewayService) -> None:
    usual = {"apply_watermark": False, "output_quality": 80, "go_fast": True, "disable_safety_checker": True}
    created(service, {**usual, "refine": "no_refiner", "aspect_ratio": "match_input_image", "guidance_scale": 7.5})
    assert service.published()[0].params.guidance_scale == 1.5


def test_a_picture_may_be_called_input_image_and_is_what_its_bytes_are(service: GatewayService) -> None:
    data = base64.b64encode(picture()).decode()
    body = {"version": "quick", "input": {"input_image": f"data:image/jpeg;base64,{data}"}}
    answer = service.client.post("/v1/predictions", json=body)
    assert answer.status_code == 201, answer.text
    assert service.published()[0].input.media_type == "image/png"


def test_a_version_of_another_service_is_told_to_be_left_out(service: GatewayService) -> None:
    answer = service.client.post("/v1/predictions", json={"version": "39" * 32, "input": {}})
    assert (
        "leave out what is behind the colon, and name a model: sfumato/quick"
        in problem(answer, 404, "unknown-model")["detail"]
    )


def test_the_python_client_gets_a_data_url_where_it_could_read_no_address(service: GatewayService) -> None:
    prediction = created(service, {})
    service.end(prediction["id"])
    service.fold()
    path = f"/v1/predictions/{prediction['id']}"

    def output(agent: str, **headers: str) -> str:
        (url,) = service.client.get(path, headers={"User-Agent": agent, **headers}).json()["output"]
        return str(url)

    data = base64.b64encode(b"the picture").decode()
    assert output("replicate-python/1.0.7") == f"data:image/png;base64,{data}"
    assert output("curl/8").startswith("http://testserver/api/jobs/")
    listed = service.client.get("/v1/predictions", headers={"User-Agent": "replicate-python/1.0.7"}).json()
    assert listed["results"][0]["output"][0].startswith("http://testserver/api/jobs/")


@pytest.mark.parametrize(
    ("given", "name"),
    [("K_EULER_ANCESTRAL", "K_EULER_ANCESTRAL"), ("dpmpp_2m", "DPMSolverMultistep"), ("LCM", "LCM"), ("ddim", "DDIM")],
)
def test_schedulers_have_two_names_and_show_the_one_of_replicate(
    service: GatewayService, given: str, name: str
) -> None:
    assert created(service, {"scheduler": given})["input"]["scheduler"] == name
    assert created(service, {"sampler": given})["input"]["scheduler"] == name


@pytest.mark.parametrize(("hook", "protocol"), [("https://receiver.example/hook", "replicate"), (None, "")])
def test_webhooks_of_a_prediction_that_is_run_again_tell_predictions_too(
    service: GatewayService, hook: str | None, protocol: str
) -> None:
    first = created(service, webhook=hook)["id"]
    service.end(first)
    service.fold()

    assert service.client.post(f"/api/jobs/{first}/retry").status_code == 202
    assert (service.published()[-1].retry_of, service.published()[-1].protocol) == (first, protocol)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, ("started", "succeeded", "failed", "canceled")),
        ({"webhook_events_filter": ["start", "logs"]}, ("started",)),
        ({"webhook_events_filter": ["output", "completed"]}, ("succeeded", "failed", "canceled")),
        ({"webhook_events_filter": ["output"]}, ("succeeded",)),
    ],
)
def test_events_of_webhooks_become_ours(service: GatewayService, asked: Any, told: tuple[str, ...]) -> None:
    created(service, webhook="https://receiver.example/hook", **asked)

    (job,) = service.published()
    assert (job.webhook_url, job.webhook_events) == ("https://receiver.example/hook", told)


def test_webhook_completed_is_told_of_the_end_alone(service: GatewayService) -> None:
    created(service, webhook_completed="https://receiver.example/hook")

    (job,) = service.published()
    assert job.webhook_events == ("succeeded", "failed", "canceled")


def test_canceling_ends_it_and_canceling_what_ended_shows_how(service: GatewayService) -> None:
    first, second = created(service), created(service)
    service.record()
    service.end(second["id"])

    for _ in range(2):
        canceled = service.client.post(f"/v1/predictions/{first['id']}/cancel")
        assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
    late = service.client.post(f"/v1/predictions/{second['id']}/cancel")
    assert (late.status_code, late.json()["status"]) == (200, "succeeded")


def test_what_another_gateway_took_in_is_waited_for(service: GatewayService) -> None:
    shown = created(service)
    service.app.state.gateway.live.forget(shown["id"])
    soon(service.record)

    assert get(service, f"/v1/predictions/{shown['id']}") == shown


def test_predictions_are_listed_over_pages_in_whatever_words_they_came(service: GatewayService) -> None:
    native = service.accepted()["id"]
    ids = [created(service)["id"] for _ in range(PREDICTIONS_A_PAGE)]
    service.fold()

    first = get(service, "/v1/predictions")
    second = get(service, first["next"])
    assert [each["id"] for each in first["results"]] == ids[::-1]
    assert [each["id"] for each in second["results"]] == [native]
    assert (first["previous"], second["next"]) == (None, None)
    assert first["next"].startswith("http://testserver/v1/predictions?cursor=")
    problem(service.client.get("/v1/predictions?page=2"), 422, "unknown-parameter")


def test_predictions_are_their_owners_alone(tmp_path: Path) -> None:
    with gateway_service(tmp_path, LISTED, auth="keys") as service:
        alice, bob = service.key("alice"), service.key("bob")
        shown = created(service, headers=alice)
        service.fold()

        path = f"/v1/predictions/{shown['id']}"
        assert service.client.get(path, headers=alice).status_code == 200
        for answer in (service.client.get(path, headers=bob), service.client.post(f"{path}/cancel", headers=bob)):
            problem(answer, 404, "not-found")
        assert service.client.get("/v1/predictions", headers=bob).json()["results"] == []
        assert service.client.get("/v1/account", headers=bob).json()["username"] == "bob"


@pytest.mark.parametrize("scheme", ["Bearer", "Token"])
def test_a_key_is_shown_as_clients_show_it(tmp_path: Path, scheme: str) -> None:
    with gateway_service(tmp_path, LISTED, auth="keys") as service:
        key = service.key("alice")["Authorization"].removeprefix("Bearer ")
        created(service, headers={"Authorization": f"{scheme} {key}"})
        problem(create(service, headers={"Authorization": f"{scheme} sfu_none"}), 401, "unauthorized")


def test_a_file_is_kept_with_what_is_told_of_it(service: GatewayService) -> None:
    answer = upload(service, metadata='{"order": 7}')
    kept = answer.json()

    assert answer.status_code == 201
    assert (kept["name"], kept["content_type"], kept["size"]) == ("in.png", "image/png", len(picture()))
    assert kept["metadata"] == {"order": 7}
    assert re.fullmatch(r"[0-9a-f]{64}", kept["checksums"]["sha256"])
    assert kept["urls"] == {"get": f"http://testserver/v1/files/{kept['id']}"}
    assert kept["expires_at"][:10] > kept["created_at"][:10]
    assert get(service, f"/v1/files/{kept['id']}") == kept
    assert get(service, "/v1/files") == {"previous": None, "next": None, "results": [kept]}


@pytest.mark.parametrize("host", ["testserver", "files.example/img2img", "FILE"])
def test_a_prediction_of_a_file_takes_it_without_fetching(service: GatewayService, host: str) -> None:
    file = upload(service).json()["id"]
    created(service, {"image": file if host == "FILE" else f"https://{host}/v1/files/{file}"})

    (job,) = service.published()
    assert service.world.blobs[job.input.key][0] == picture()


def test_a_file_is_deleted_once_and_its_prediction_goes_on(service: GatewayService) -> None:
    file = upload(service).json()
    created(service, {"image": file["urls"]["get"]})

    assert service.client.delete(f"/v1/files/{file['id']}").status_code == 204
    problem(service.client.delete(f"/v1/files/{file['id']}"), 404, "not-found")
    problem(service.client.get(f"/v1/files/{file['id']}"), 404, "not-found")
    problem(create(service, {"image": file["urls"]["get"]}), 404, "not-found")
    assert {key.partition("/")[0] for key in service.world.blobs} == {"inputs"}


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    with gateway_service(tmp_path, LISTED, auth="keys") as service:
        file = upload(service, owner="alice").json()
        bob = service.key("bob")

        for method in ("GET", "DELETE"):
            problem(service.client.request(method, f"/v1/files/{file['id']}", headers=bob), 404, "not-found")
        problem(create(service, {"image": file["urls"]["get"]}, headers=bob), 404, "not-found")
        service.faults.asked.clear()
        assert service.client.get("/v1/files", headers=bob).json()["results"] == []
        assert "get" not in service.faults.asked
        assert service.client.get("/v1/files", headers=service.key("alice")).json()["results"] == [file]


def test_files_are_listed_over_pages_newest_first(service: GatewayService) -> None:
    ids = [upload(service).json()["id"] for _ in range(FILES_A_PAGE + 1)]

    first = get(service, "/v1/files")
    second = get(service, first["next"])
    assert len(first["results"]) == FILES_A_PAGE
    listed = [each["id"] for each in first["results"] + second["results"]]
    assert listed == sorted(ids, reverse=True)
    assert second["next"] is None


@pytest.mark.parametrize(
    ("sent", "status", "slug", "words"),
    [
        ({"data": b"no picture"}, 415, "unsupported-picture", "content can't be read"),
        ({"data": b""}, 422, "missing-image", "content is empty"),
        ({"media_type": "image/jpeg"}, 415, "mislabeled-picture", "content is declared as image/jpeg and begins like"),
        ({"type": "image/jpeg"}, 415, "mislabeled-picture", "content is declared as image/jpeg and begins like"),
        ({"media_type": "application/zip"}, 415, "unsupported-picture", "content is declared as 'application/zip'"),
        ({"metadata": "[]"}, 422, "invalid-parameters", "metadata is '[]'; it must be a JSON object"),
        ({"purpose": "x"}, 422, "unknown-parameter", "purpose is not known here. Known are: filename, type, metadata"),
    ],
)
def test_files_that_are_no_pictures_are_refused(
    service: GatewayService, sent: dict[str, Any], status: int, slug: str, words: str
) -> None:
    told = problem(upload(service, **sent), status, slug)

    assert words in told["detail"], told
    assert service.world.blobs == {}


def test_a_file_is_swept_with_what_is_told_of_it(service: GatewayService) -> None:
    upload(service)
    world, settings = service.world, service.app.state.gateway.settings
    stores = MemoryBlobs(world), MemoryOutcomes(world), MemoryRows(world), MemoryBroker(world)
    sweep = Sweep(promised(settings), *stores)

    asyncio.run(sweep.turn(time.time() + UPLOAD_KEEP_S - 60))
    assert len(world.blobs) == 2
    asyncio.run(sweep.turn(time.time() + UPLOAD_KEEP_S + 60))
    assert world.blobs == {}


def test_a_form_without_a_file_says_where_it_belongs(service: GatewayService) -> None:
    nothing = service.client.post("/v1/files", files={"filename": (None, "a.png")})
    assert "no field content" in problem(nothing, 422, "missing-image")["detail"]
    elsewhere = service.client.post("/v1/files", files={"image": ("a.png", picture(), "image/png")})
    assert "the picture's field is called content" in problem(elsewhere, 422, "unknown-parameter")["detail"]


def test_a_version_says_what_its_model_takes(service: GatewayService) -> None:
    (version,) = get(service, "/v1/models/sfumato/quick/versions")["results"]
    rules = service.app.state.gateway.registry.get("quick").rules

    assert version == get(service, f"/v1/models/sfumato/quick/versions/{version['id']}")
    schemas = version["openapi_schema"]["components"]["schemas"]
    assert schemas["Output"] == {"type": "array", "items": {"type": "string", "format": "uri"}, "title": "Output"}
    taken = schemas["Input"]["properties"]
    assert [taken[name]["x-order"] for name in taken] == list(range(len(taken)))
    assert schemas["Input"]["required"] == ["image"]
    assert taken["num_inference_steps"]["maximum"] == rules.max_steps
    assert taken["prompt_strength"]["default"] == rules.strength
    assert taken["scheduler"]["enum"] == ["K_EULER", "K_EULER_ANCESTRAL", "DDIM", "DPMSolverMultistep", "LCM"]
    created(service, {name: about["default"] for name, about in taken.items() if "default" in about})


def test_a_version_is_of_its_model_alone(service: GatewayService) -> None:
    other = version_of(service, "acme/style")
    problem_told = service.client.get(f"/v1/models/sfumato/quick/versions/{other}").json()

    assert (problem_told["status"], problem_told["type"]) == (404, "urn:sfumato:problem:unknown-model")
    assert len({version_of(service, name) for name in ("quick", "a b:c", "acme/style")}) == 3


def test_models_are_listed_for_the_clients_of_both(service: GatewayService) -> None:
    listed = get(service, "/v1/models")

    assert [each["id"] for each in listed["data"]] == ["quick", "a b:c", "acme/style"]
    assert listed["data"][0] == {"id": "quick", "object": "model", "created": 0, "owned_by": "sfumato"}
    assert [(each["owner"], each["name"]) for each in listed["results"]] == [
        *(("sfumato", "quick"), ("sfumato", "a%20b%3Ac"), ("acme", "style")),
    ]
    assert listed["results"][1]["description"] == "Odd in name alone."
    assert (listed["object"], listed["previous"], listed["next"]) == ("list", None, None)


def test_a_model_is_told_to_whose_name_it_is_asked_by(service: GatewayService) -> None:
    assert get(service, "/v1/models/quick").keys() == {"id", "object", "created", "owned_by"}
    assert "latest_version" in get(service, "/v1/models/sfumato/quick")
    both = get(service, "/v1/models/acme/style")
    assert (both["id"], both["owner"], both["name"]) == ("acme/style", "acme", "style")


def test_models_are_searched_by_name_and_summary(service: GatewayService) -> None:
    for wanted, found in (("ODD in name", ["a%20b%3Ac"]), ("acme", ["style"]), ("", ["quick", "a%20b%3Ac", "style"])):
        answer = service.client.request("QUERY", "/v1/models", content=wanted)
        assert [each["name"] for each in answer.json()["results"]] == found


@pytest.mark.parametrize(
    ("protocols", "members"),
    [
        ("openai", {"error"}),
        ("replicate", {"type", "title", "status", "detail", "known_models"}),
        ("openai,replicate", {"type", "title", "status", "detail", "known_models", "error"}),
    ],
)
def test_a_failure_is_told_in_the_words_of_what_is_spoken(tmp_path: Path, protocols: str, members: set[str]) -> None:
    with gateway_service(tmp_path, LISTED, protocols=protocols) as service:
        answer = service.client.get("/v1/models/nope")

        assert (answer.status_code, answer.json().keys()) == (404, members)
        assert "model 'nope' is unknown" in answer.text
        elsewhere = service.client.get("/v1/nothing")
        assert (elsewhere.status_code, elsewhere.json().keys()) == (404, members - {"known_models"})


def test_of_one_protocol_alone_the_other_part_is_not_there(tmp_path: Path) -> None:
    with gateway_service(tmp_path, LISTED, protocols="openai") as service:
        assert get(service, "/v1/models").keys() == {"object", "data"}
        assert create(service).status_code == 404
    with gateway_service(tmp_path, LISTED, protocols="replicate") as service:
        assert get(service, "/v1/models").keys() == {"previous", "next", "results"}
        assert get(service, "/v1/models/quick")["owner"] == "sfumato"
    with gateway_service(tmp_path, LISTED, protocols="") as service:
        problem(service.client.get("/v1/models"), 404, "no-such-route")


def test_the_secret_is_the_one_that_signs_the_owners_webhooks(tmp_path: Path) -> None:
    with gateway_service(tmp_path, LISTED, auth="keys") as service:
        alice = service.key("alice", "read", "submit")
        shown = service.client.get("/v1/webhooks/default/secret", headers=alice).json()
        native = service.client.post("/api/webhooks/secrets", headers=alice).json()["secrets"]

        assert shown == {"key": native[0]}
        assert shown["key"].startswith("whsec_")


def test_where_nobody_needs_a_key_the_secret_is_the_services_own(service: GatewayService) -> None:
    problem(service.client.get("/v1/webhooks/default/secret"), 403, "forbidden")
