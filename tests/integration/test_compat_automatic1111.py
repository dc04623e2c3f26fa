"""AUTOMATIC1111's protocol at the gateway: what its fields become, what is refused and in which words, its answers."""

import asyncio
import base64
import json
import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sfumato.config import load_settings
from sfumato.core.job import Job, State, preview_key
from sfumato.core.params import ResizeMode, Sampler
from sfumato.gateway.compat.automatic1111.underway import Underway
from sfumato.recorder.sweep import promised
from tests.integration.gateway_service import GatewayService, gateway_service
from tests.sample_pictures import picture
from tests.support import make_job, poll

MODELS = """
[models.quick]
backend = "simulated"

[models.flow]
backend = "simulated"
rules = { sampler = "flow_match_euler", samplers = ["flow_match_euler"] }

[models."own pipeline"]
backend = "simulated"
rules = { sampler = "native", samplers = ["native"] }
"""
PICTURE = picture()
ENCODED = base64.b64encode(PICTURE).decode()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    with gateway_service(tmp_path, MODELS) as gateway:
        yield gateway


def img2img(service: GatewayService, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """POST img2img with a good picture, unless told otherwise."""
    asked = {"init_images": [ENCODED], "prompt": "as a mosaic"} | fields
    return service.client.post("/sdapi/v1/img2img", json=asked, headers=headers)


@contextmanager
def calling(service: GatewayService, jobs: int = 1, **fields: Any) -> Iterator[tuple["Future[Any]", list[str]]]:
    """A call that waits for its answer, and the ids of its jobs, which have been taken in."""
    before = ids(service)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(img2img, service, **fields)
        try:
            poll(lambda: len(ids(service)) == len(before) + jobs)
            yield answer, ids(service)[len(before) :]
        finally:
            end_all(service)


def made(service: GatewayService, **fields: Any) -> Any:
    """The answer to a call that must be good, whose jobs are done as they come."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(img2img, service, **fields)
        poll(lambda: done(service, answer))
        assert answer.result().status_code == 200, answer.result().text
        return answer.result().json()


def done(service: GatewayService, answer: "Future[Any]") -> bool:
    """Do the worker's work for every job that has come; whether the answer has too."""
    end_all(service)
    return answer.done()


def end_all(service: GatewayService) -> None:
    for job in jobs(service):
        if job.id not in service.world.outcomes:
            service.end(job.id)


def jobs(service: GatewayService) -> list[Job]:
    return [job for slug in ("quick", "flow", "own-pipeline") for job in service.published(slug)]


def ids(service: GatewayService) -> list[str]:
    return [job.id for job in jobs(service)]


def info(answer: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(answer["info"])
    return told


def refused(answer: Any, status: int, *words: str) -> None:
    """The answer must be this refusal, in the shape that AUTOMATIC1111's have."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"error", "detail", "body", "errors"}
    assert body["error"]
    assert body["errors"] == body["detail"]
    for word in words:
        assert word in body["detail"]


def progress(service: GatewayService, query: str = "", headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = service.client.get(f"/sdapi/v1/progress{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def post(service: GatewayService, name: str, said: Any = None, headers: dict[str, str] | None = None) -> Any:
    return service.client.post(f"/sdapi/v1/{name}", json=said, headers=headers)


def options(service: GatewayService, headers: dict[str, str] | None = None) -> dict[str, Any]:
    told: dict[str, Any] = service.client.get("/sdapi/v1/options", headers=headers).json()
    return told


def watched(service: GatewayService) -> list[str]:
    events = map(json.loads, service.world.topic("quick").events)
    return [event["job_id"] for event in events if event["kind"] == "watched"]


# What a call becomes


def test_what_is_sent_becomes_the_jobs_parameters(service: GatewayService) -> None:
    made(
        service,
        **{"prompt": "neon", "negative_prompt": "dark", "denoising_strength": 0.7, "steps": 9, "cfg_scale": 1.5},
        **{"seed": 42, "sampler_name": "Euler a", "width": 128, "height": 96, "priority": "high"},
        override_settings={"samples_format": "jpg"},
    )
    (job,) = jobs(service)
    params = job.params
    assert (params.prompt, params.negative_prompt) == ("neon", "dark")
    assert (params.strength, params.num_inference_steps, params.guidance_scale) == (0.7, 9, 1.5)
    assert (params.seed, params.sampler, params.output_format) == (42, Sampler.EULER_ANCESTRAL, "jpeg")
    assert (params.width, params.height, params.exact) == (128, 96, True)
    assert (job.priority, job.protocol, job.model) == ("high", "automatic1111", "quick")


@pytest.mark.parametrize("size", [{}, {"width": 512}, {"height": 512}])
def test_what_is_left_out_is_the_models_default_and_the_pictures_own_aspect(
    service: GatewayService, size: dict[str, int]
) -> None:
    made(service, resize_mode=1, **size)
    (job,) = jobs(service)
    rules = service.app.state.gateway.registry.get("quick").rules
    assert (job.params.strength, job.params.num_inference_steps) == (rules.strength, rules.num_inference_steps)
    assert (job.params.guidance_scale, job.params.sampler) == (rules.guidance_scale, rules.sampler)
    assert not job.params.exact


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ({}, ResizeMode.STRETCH),
        ({"resize_mode": 0}, ResizeMode.STRETCH),
        ({"resize_mode": 1}, ResizeMode.CROP),
        ({"resize_mode": 2}, ResizeMode.FILL),
        ({"resize_mode": 3}, ResizeMode.STRETCH),
    ],
)
def test_resize_modes_are_known_by_their_numbers(
    service: GatewayService, sent: dict[str, int], meant: ResizeMode
) -> None:
    made(service, width=64, height=64, **sent)
    assert jobs(service)[0].params.resize_mode is meant


@pytest.mark.parametrize(
    ("model", "sent", "meant", "told"),
    [
        ("quick", {"sampler_name": "Euler"}, Sampler.EULER, "Euler"),
        ("quick", {"sampler_name": "DPM++ 2M Karras"}, Sampler.DPMPP_2M, "DPM++ 2M"),
        ("quick", {"sampler_name": "dpm++ 2m sgm uniform"}, Sampler.DPMPP_2M, "DPM++ 2M"),
        ("quick", {"sampler_index": "DDIM", "scheduler": "karras"}, Sampler.DDIM, "DDIM"),
        ("quick", {"sampler_name": "LCM", "sampler_index": "Euler"}, Sampler.LCM, "LCM"),
        ("flow", {"sampler_name": "Euler"}, Sampler.FLOW_MATCH_EULER, "Euler"),
        ("own pipeline", {"sampler_name": "Automatic"}, Sampler.NATIVE, "Automatic"),
    ],
)
def test_samplers_are_known_by_their_names(
    service: GatewayService, model: str, sent: dict[str, str], meant: Sampler, told: str
) -> None:
    answer = made(service, override_settings={"sd_model_checkpoint": model}, **sent)
    assert jobs(service)[0].params.sampler is meant
    assert info(answer)["sampler_name"] == told
    assert f"Sampler: {told}, Schedule type: Automatic," in info(answer)["infotexts"][0]


def test_an_unknown_sampler_is_refused_with_those_that_are_near(service: GatewayService) -> None:
    refused(img2img(service, sampler_name="DPM++ SDE"), 422, "sampler_name 'DPM++ SDE'", "Closest to it: DPM++ 2M")
    flow = {"sd_model_checkpoint": "flow"}
    refused(img2img(service, sampler_name="DDIM", override_settings=flow), 422, "It has: Euler.")


@pytest.mark.parametrize("spelled", ["flow", "flow [0a1b2c3d]", "flow.safetensors", "flow.safetensors [0a1b2c3d4e]"])
def test_a_model_is_known_by_its_checkpoints_title(service: GatewayService, spelled: str) -> None:
    made(service, override_settings={"sd_model_checkpoint": spelled})
    assert jobs(service)[0].model == "flow"


def test_a_batch_has_one_seed_behind_the_other(service: GatewayService) -> None:
    answer = made(service, seed=7, batch_size=2, n_iter=2)
    assert [job.params.seed for job in jobs(service)] == [7, 8, 9, 10]
    assert len({job.call for job in jobs(service)}) == 1
    assert info(answer)["all_seeds"] == [7, 8, 9, 10]
    assert (info(answer)["seed"], info(answer)["batch_size"]) == (7, 2)
    assert len(answer["images"]) == 4


@pytest.mark.parametrize("sent", [{}, {"seed": -1}, {"seed": None}])
def test_a_seed_that_nobody_chose_is_random_and_told(service: GatewayService, sent: dict[str, Any]) -> None:
    first, second = (info(made(service, batch_size=2, **sent))["all_seeds"] for _ in range(2))
    assert first[1] == first[0] + 1
    assert first != second


def test_the_same_call_with_its_key_is_answered_with_the_same_pictures(service: GatewayService) -> None:
    key = {"Idempotency-Key": "once"}
    first, second = (made(service, headers=key, batch_size=2) for _ in range(2))
    assert first == second
    assert len(set(ids(service))) == 2


def test_several_pictures_are_a_batch(service: GatewayService) -> None:
    other = base64.b64encode(picture("JPEG", (40, 30))).decode()
    answer = made(service, init_images=[ENCODED, other], batch_size=4, n_iter=2, seed=1)
    assert [job.input.media_type for job in jobs(service)] == ["image/png", "image/jpeg"] * 2
    assert [job.params.seed for job in jobs(service)] == [1, 2, 3, 4]
    assert info(answer)["batch_size"] == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"init_images": None}, ["init_images has no picture"]),
        ({"init_images": []}, ["init_images has no picture"]),
        ({"init_images": [ENCODED] * 2}, ["init_images has 2 pictures and batch_size is 1"]),
        ({"init_images": [ENCODED] * 200}, ["init_images has 200 pictures and batch_size is 1"]),
        ({"init_images": [ENCODED] * 17, "batch_size": 17}, ["17 pictures; at most 16 are made"]),
        ({"batch_size": 5, "n_iter": 4}, ["batch of 5 times n_iter 4 is 20 pictures; at most 16"]),
        ({"batch_size": 0}, ["batch_size is '0'"]),
        ({"resize_mode": 4}, ["resize_mode is '4'"]),
        ({"denoising_strength": 0}, ["denoising_strength is 0"]),
        ({"denoising_strength": "much"}, ["denoising_strength is 'much'"]),
        ({"steps": 10_000}, ["steps is 10000; it must be 1 to"]),
        ({"cfg_scale": -1}, ["cfg_scale is -1"]),
        ({"seed": -5}, ["seed is -5"]),
        ({"width": 100, "height": 96}, ["width is 100; it must be a positive multiple of"]),
        ({"width": 4096, "height": 4096}, ["this model makes at most"]),
        ({"priority": "asap"}, ["priority"]),
        ({"override_settings": {"samples_format": "gif"}}, ["samples_format is 'gif'; it must be png, jpg"]),
        ({"override_settings": [1]}, ["override_settings"]),
    ],
)
def test_what_is_out_of_range_is_refused_by_its_own_name(
    service: GatewayService, fields: dict[str, Any], words: list[str]
) -> None:
    refused(img2img(service, **fields), 422, *words)
    assert jobs(service) == []


@pytest.mark.parametrize(
    "image",
    [
        ENCODED,
        f"data:image/png;base64,{ENCODED}",
        "\n".join(ENCODED[at : at + 76] for at in range(0, len(ENCODED), 76)),
    ],
    ids=["base64", "data URL", "lines"],
)
def test_a_picture_may_be_spelled_as_clients_do(service: GatewayService, image: str) -> None:
    made(service, init_images=[image])
    (job,) = jobs(service)
    assert service.world.blobs[job.input.key][0] == PICTURE
    assert job.input.media_type == "image/png"


def test_more_guidance_than_the_model_takes_is_as_much_as_it_takes(service: GatewayService) -> None:
    answer = made(service, cfg_scale=7)

    (job,) = jobs(service)
    assert job.params.guidance_scale == 1.5
    assert json.loads(answer["info"])["cfg_scale"] == 1.5


def test_what_a_picture_claims_to_be_is_what_its_bytes_are(service: GatewayService) -> None:
    made(service, init_images=[f"data:image/jpeg;base64,{ENCODED}"])
    (job,) = jobs(service)
    assert job.input.media_type == "image/png"


def test_a_picture_of_this_service_says_nothing_of_its_making(service: GatewayService) -> None:
    answer = service.client.post("/sdapi/v1/png-info", json={"image": ENCODED})
    assert answer.json() == {"info": "", "items": {}, "parameters": {}}


def test_what_is_not_done_here_is_told_with_what_is(service: GatewayService) -> None:
    answer = service.client.post("/sdapi/v1/txt2img", json={})
    assert answer.json()["detail"].endswith("This service changes pictures: POST /sdapi/v1/img2img.")


@pytest.mark.parametrize(
    ("image", "status", "word"),
    [
        ("###", 422, "no valid base64"),
        (ENCODED[:-3], 422, "no valid base64"),
        (f"data:text/plain;base64,{ENCODED}", 415, "declared as 'text/plain'"),
        ("data:image/png,abc", 422, "data URL of base64"),
        (base64.b64encode(b"no picture at all").decode(), 415, "can't be read"),
        ("http://example.com/cat.png", 422, "SFUMATO_REMOTE_IMAGES"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(service: GatewayService, image: str, status: int, word: str) -> None:
    refused(img2img(service, init_images=[image]), status, word)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mask", ENCODED),
        ("script_name", "SD upscale"),
        ("restore_faces", True),
        ("tiling", True),
        ("enable_hr", True),
        ("subseed_strength", 0.2),
        ("alwayson_scripts", {"ControlNet": {"args": [{"enabled": True, "image": "x"}]}}),
        ("alwayson_scripts", {"ADetailer": {"args": [True, {"ad_model": "face"}]}}),
    ],
)
def test_what_would_change_the_picture_and_is_not_done_is_refused(
    service: GatewayService, name: str, value: Any
) -> None:
    refused(img2img(service, **{name: value}), 422, name)
    assert jobs(service) == []


def test_what_is_switched_off_or_unknown_is_taken(service: GatewayService) -> None:
    scripts = {
        **{"ADetailer": {"args": [False]}, "animatediff": {"args": []}, "seen": {}, "old": {"args": [False, {"a": 1}]}},
        "ControlNet": {"args": [{"enabled": False}]},
    }
    off: dict[str, Any] = {
        "mask": None,
        "script_name": "",
        "restore_faces": False,
        "tiling": None,
        "subseed_strength": 0,
    }
    answer = made(service, alwayson_scripts=scripts, **off, eta=1.0, styles=["x"], nobody_knows_this=[1], mask_blur=4)
    assert answer["parameters"]["nobody_knows_this"] == [1]


# What is answered


def test_the_answer_has_the_pictures_and_how_they_were_made(service: GatewayService) -> None:
    answer = made(service, prompt="neon", negative_prompt="dark", seed=3, steps=8, denoising_strength=0.5, cfg_scale=1)
    assert answer.keys() == {"images", "parameters", "info"}
    assert base64.b64decode(answer["images"][0]) == b"the picture"
    sent = {"prompt": "neon", "negative_prompt": "dark", "seed": 3, "steps": 8, "denoising_strength": 0.5}
    assert answer["parameters"] == sent | {"cfg_scale": 1.0, "init_images": None}
    told = info(answer)
    assert (told["prompt"], told["all_prompts"], told["negative_prompt"]) == ("neon", ["neon"], "dark")
    assert (told["sd_model_name"], told["sd_model_hash"], told["width"], told["height"]) == ("quick", None, 64, 48)
    assert told["index_of_first_image"] == 0
    assert told["infotexts"] == [
        "neon\nNegative prompt: dark\nSteps: 8, Sampler: DPM++ 2M, Schedule type: Automatic, CFG scale: 1.0, Seed: 3, "
        "Size: 64x48, Model: quick, Denoising strength: 0.5"
    ]


def test_pictures_that_nobody_wants_are_made_and_not_sent(service: GatewayService) -> None:
    answer = made(service, send_images=False)
    assert answer["images"] == []
    assert len(info(answer)["infotexts"]) == len(jobs(service)) == 1


def test_numbers_that_json_has_no_word_for_are_told_as_null(service: GatewayService) -> None:
    body = json.dumps({"init_images": [ENCODED], "s_tmax": math.inf})
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.client.post, "/sdapi/v1/img2img", content=body)
        poll(lambda: done(service, answer))
    assert answer.result().json()["parameters"]["s_tmax"] is None


def test_a_job_that_failed_is_the_end_of_its_call(service: GatewayService) -> None:
    with calling(service, jobs=2, batch_size=2) as (answer, (first, second)):
        service.end(first)
        service.end(second, State.FAILED)
        refused(answer.result(10), 410, "The picture can't be decoded: It is cut off.")


def test_a_call_that_takes_too_long_is_answered_and_given_up(tmp_path: Path) -> None:
    with gateway_service(tmp_path, MODELS, call_wait_s=0.3) as service:
        refused(img2img(service, batch_size=2), 504, "No picture within 0.3 s")
        assert [service.world.outcomes[job_id].state for job_id in ids(service)] == [State.CANCELED] * 2


def test_failures_have_the_shape_that_clients_know(service: GatewayService) -> None:
    unknown = {"sd_model_checkpoint": "sdxl.safetensors [0a]"}
    refused(img2img(service, override_settings=unknown), 404, "sd_model_checkpoint 'sdxl", "quick, flow")
    refused(post(service, "txt2img", {}), 404, "/sdapi/v1/txt2img")
    refused(service.client.get("/sdapi/v1/img2img"), 405, "POST")
    refused(service.client.post("/sdapi/v1/img2img", content=b"{"), 400, "JSON object")
    refused(service.client.get("/sdapi/v1/progress?skip_current_image=perhaps"), 422, "skip_current_image")


def test_a_key_is_the_password_and_is_asked_for_as_one(tmp_path: Path) -> None:
    with gateway_service(tmp_path, MODELS, auth="keys") as service:
        key = service.key("alice")["Authorization"].removeprefix("Bearer ")
        nobody = service.client.get("/sdapi/v1/options")
        refused(nobody, 401, "as the password, with any user name")
        assert nobody.headers["www-authenticate"] == 'Basic realm="sfumato"'
        assert service.client.get("/sdapi/v1/options", auth=("anybody", key)).status_code == 200
        assert service.client.get("/sdapi/v1/options", auth=(key, "anything")).status_code == 401


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"Origin": "https://evil.example"}, 401),
        ({"Sec-Fetch-Site": "cross-site"}, 401),
        ({"Origin": "http://testserver"}, 200),
        ({"Origin": "https://pictures.example"}, 200),
    ],
)
def test_a_page_of_another_site_can_not_use_a_password_that_the_browser_keeps(
    tmp_path: Path, told: dict[str, str], status: int
) -> None:
    with gateway_service(tmp_path, MODELS, auth="keys", public_url="https://pictures.example") as service:
        key = service.key("alice")["Authorization"].removeprefix("Bearer ")
        kept = service.client.post("/sdapi/v1/interrupt", auth=("me", key), headers=told)
        assert kept.status_code == status
        shown = {"Authorization": f"Bearer {key}"} | told
        assert service.client.post("/sdapi/v1/interrupt", headers=shown).status_code == 200


def test_the_protocol_can_be_switched_off(tmp_path: Path) -> None:
    with gateway_service(tmp_path, MODELS, protocols="openai") as service:
        assert img2img(service).status_code == 404
        assert service.client.get("/sdapi/v1/options").headers["content-type"] == "application/problem+json"


# What is asked for beside


def test_models_and_samplers_are_told(service: GatewayService) -> None:
    models = service.client.get("/sdapi/v1/sd-models").json()
    assert [model["title"] for model in models] == ["quick", "flow", "own pipeline"]
    assert models[0].keys() == {"title", "model_name", "hash", "sha256", "filename", "config"}
    samplers = service.client.get("/sdapi/v1/samplers").json()
    names = ["DPM++ 2M", "Euler a", "Euler", "DDIM", "LCM", "Automatic"]
    assert samplers == [{"name": name, "aliases": [], "options": {}} for name in names]


def test_models_are_read_again_when_that_is_asked(service: GatewayService, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text('[models.fresh]\nbackend = "simulated"\n')
    assert post(service, "refresh-checkpoints").json() is None
    assert [model["title"] for model in service.client.get("/sdapi/v1/sd-models").json()] == ["fresh"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("schedulers", ["automatic"]),
        *((name, []) for name in ("script-info", "extensions", "upscalers", "latent-upscale-modes", "sd-vae", "loras")),
        *((name, []) for name in ("hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles")),
        ("scripts", {"txt2img", "img2img"}),
        ("embeddings", {"loaded", "skipped"}),
        ("memory", {"ram", "cuda"}),
        ("cmd-flags", {"api"}),
    ],
)
def test_what_there_is_not_is_told_in_the_shape_that_clients_read(
    service: GatewayService, name: str, told: Any
) -> None:
    answer = service.client.get(f"/sdapi/v1/{name}").json()
    assert (answer.keys() if isinstance(answer, dict) else [each["name"] for each in answer]) == told


def test_the_model_chosen_by_an_option_is_that_of_calls_that_name_none(service: GatewayService) -> None:
    assert options(service)["sd_model_checkpoint"] == "quick"
    assert post(service, "options", {"sd_model_checkpoint": "flow.safetensors [1f]"}).json() is None
    assert options(service)["sd_model_checkpoint"] == "flow"
    made(service)
    made(service, override_settings={"sd_model_checkpoint": "quick"})
    assert sorted(job.model for job in jobs(service)) == ["flow", "quick"]


def test_a_chosen_model_is_its_owners_alone_and_nothing_sweeps_it(tmp_path: Path) -> None:
    with gateway_service(tmp_path, MODELS, auth="keys") as service:
        alice, bob = service.key("alice"), service.key("bob")
        post(service, "options", {"sd_model_checkpoint": "flow"}, alice)
        assert options(service, alice)["sd_model_checkpoint"] == "flow"
        assert options(service, bob)["sd_model_checkpoint"] == "quick"
        kept = [key for key in service.world.blobs if key.startswith("options/")]
    assert len(kept) == 1
    assert "alice" not in kept[0]
    assert not kept[0].startswith(tuple(promised(load_settings(data_dir=tmp_path)).objects))


def test_a_model_that_is_not_there_can_not_be_chosen(service: GatewayService) -> None:
    refused(post(service, "options", {"sd_model_checkpoint": "sdxl"}), 404, "'sdxl' is unknown", "quick, flow")
    refused(post(service, "options", ["sd_model_checkpoint"]), 400)
    assert options(service)["sd_model_checkpoint"] == "quick"


def test_options_that_mean_nothing_here_are_taken(service: GatewayService) -> None:
    assert post(service, "options", {"CLIP_stop_at_last_layers": 2, "sd_vae": "x"}).status_code == 200
    assert options(service)["CLIP_stop_at_last_layers"] == 1
    assert not [key for key in service.world.blobs if key.startswith("options/")]


def test_a_chosen_model_that_is_gone_is_refused_until_another_is_chosen(
    service: GatewayService, tmp_path: Path
) -> None:
    post(service, "options", {"sd_model_checkpoint": "flow"})
    (tmp_path / "models.toml").write_text('[models.quick]\nbackend = "simulated"\n')
    post(service, "refresh-checkpoints")
    refused(img2img(service), 404, "sd_model_checkpoint 'flow' is unknown")
    post(service, "options", {"sd_model_checkpoint": "quick"})
    made(service)


# What is under way

IDLE = {"job_count": 0, "job_no": 0, "sampling_step": 0, "sampling_steps": 0, "job": ""}


def test_where_nothing_is_under_way_progress_is_none(service: GatewayService) -> None:
    service.accepted()
    service.fold()
    told = progress(service)
    assert told.keys() == {"progress", "eta_relative", "state", "current_image", "textinfo", "current_task"}
    assert (told["progress"], told["current_image"]) == (0.0, None)
    assert told["state"].items() >= IDLE.items()
    assert told["state"].keys() > {"skipped", "interrupted", "stopping_generation", "job_timestamp"}


def test_progress_that_many_ask_for_at_once_is_looked_up_once(service: GatewayService) -> None:
    underway = Underway(service.app.state.gateway)

    async def ask() -> list[dict[str, Any]]:
        return await asyncio.gather(*(underway.progress("local", picture=False) for _ in range(20)))

    with calling(service):
        service.record()
        service.faults.asked.clear()
        assert service.client.portal is not None
        told = service.client.portal.call(ask)

    assert [each["state"]["job_count"] for each in told] == [1] * 20
    assert service.faults.asked.count("row") == 1


def test_progress_counts_the_pictures_of_a_call_and_their_steps(service: GatewayService) -> None:
    with calling(service, jobs=4, batch_size=4) as (_, (first, second, *_others)):
        assert progress(service)["progress"] == 0.01
        service.end(first)
        service.start(second, step=3, steps=6)
        told = poll(lambda: (now := progress(service))["state"]["sampling_step"] and now)
        state = told["state"]
        assert (state["job_count"], state["job_no"], state["sampling_step"], state["sampling_steps"]) == (4, 1, 3, 6)
        assert told["progress"] == pytest.approx(0.01 + 1 / 4 + 3 / 6 / 4)
        assert state["job"] == "scripts_img2img"
    assert progress(service)["state"].items() >= IDLE.items()


def test_to_ask_for_progress_lets_previews_be_made_and_shows_the_newest(service: GatewayService) -> None:
    with calling(service) as (_, (job_id,)):
        progress(service, "?skip_current_image=true")
        assert watched(service) == []
        assert progress(service)["current_image"] is None
        assert watched(service) == [job_id]
        service.world.blobs[preview_key(job_id)] = (b"a preview", 0.0)
        service.start(job_id, step=3, steps=6, preview=3)
        shown = poll(lambda: progress(service)["current_image"])
        assert base64.b64decode(shown) == b"a preview"
        assert progress(service, "?skip_current_image=true")["current_image"] is None


def elsewhere(service: GatewayService, number: int, **changes: Any) -> Job:
    """A job of a call that another gateway took in."""
    now = service.app.state.gateway.clock()
    plain = {"model": "quick", "protocol": "automatic1111", "call": "elsewhere", "created_at": now + number / 1000}
    job = make_job(number, **(plain | {"expires_at": now + 1000} | changes))
    service.world.topic("quick").jobs.append(job.model_dump_json())
    service.fold()
    return job


def test_a_call_is_under_way_for_every_gateway(service: GatewayService) -> None:
    first, second = elsewhere(service, 1), elsewhere(service, 2)
    service.end(first.id)
    service.fold()
    state = progress(service)["state"]
    assert (state["job_count"], state["job_no"]) == (2, 1)
    assert post(service, "interrupt").json() == {}
    assert service.world.outcomes[second.id].state is State.CANCELED
    assert progress(service)["state"].items() >= IDLE.items()


def test_of_several_calls_the_oldest_is_told(service: GatewayService) -> None:
    elsewhere(service, 2, call="b")
    elsewhere(service, 1, call="a")
    elsewhere(service, 3, call="a")
    told = progress(service)
    assert (told["current_task"], told["state"]["job_count"]) == ("a", 2)


def test_a_call_is_over_with_its_jobs_although_no_row_tells_so_yet(service: GatewayService) -> None:
    over = elsewhere(service, 1, call="a")
    elsewhere(service, 2, call="b")
    service.end(over.id)
    assert progress(service)["current_task"] == "b"


def test_a_call_is_its_owners_alone(tmp_path: Path) -> None:
    with gateway_service(tmp_path, MODELS, auth="keys") as service:
        alice, bob = service.key("alice"), service.key("bob")
        with calling(service, headers=alice) as (_, (job_id,)):
            service.fold()
            assert progress(service, headers=alice)["state"]["job_count"] == 1
            assert progress(service, headers=bob)["state"].items() >= IDLE.items()
            assert post(service, "interrupt", headers=bob).status_code == 200
            assert post(service, "skip", headers=bob).status_code == 200
            assert job_id not in service.world.outcomes


def test_an_interrupted_call_answers_with_the_pictures_that_it_has(service: GatewayService) -> None:
    native = service.accepted()["id"]
    service.fold()
    with calling(service, jobs=3, batch_size=3, seed=5) as (answer, (_first, second, _third)):
        service.end(second)
        assert post(service, "interrupt").json() == {}
        told = answer.result(10).json()
        assert native not in service.world.outcomes
    assert len(told["images"]) == 1
    assert info(told)["all_seeds"] == [6]


def test_a_call_interrupted_before_its_first_picture_is_told_as_canceled(service: GatewayService) -> None:
    with calling(service, jobs=2, batch_size=2) as (answer, _):
        post(service, "interrupt")
        refused(answer.result(10), 410, "The job was canceled")


def test_skip_gives_up_the_picture_that_runs_longest_and_no_other(service: GatewayService) -> None:
    with calling(service, jobs=3, batch_size=3, seed=5) as (answer, (first, second, third)):
        post(service, "skip")
        assert service.world.outcomes == {}
        service.start(second, step=1, steps=6)
        service.start(first, step=5, steps=6)
        poll(lambda: progress(service)["state"]["sampling_step"] == 5)
        post(service, "skip")
        assert [job_id for job_id in (first, second, third) if job_id in service.world.outcomes] == [second]
        assert progress(service)["state"]["skipped"]
        service.end(first)
        service.end(third)
        told = answer.result(10).json()
    assert info(told)["all_seeds"] == [5, 7]
