"""Every route × every scope: who gets in, who is told to bring a key, and who that the key is for something else."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.gateway_service import GatewayService, gateway_service, problem

OPEN = {
    ("get", "/api/status"),
    ("get", "/healthz"),
    ("get", "/metrics"),
    ("get", "/readyz"),
}
READ = {
    ("get", "/api/events"),
    ("get", "/api/jobs"),
    ("get", "/api/jobs/{job_id}"),
    ("get", "/api/jobs/{job_id}/events"),
    ("get", "/api/jobs/{job_id}/input"),
    ("get", "/api/jobs/{job_id}/result"),
    ("get", "/api/models"),
    ("get", "/api/scale/{model_name}"),
    ("get", "/api/webhooks/deliveries"),
    ("get", "/api/webhooks/endpoints"),
}
SUBMIT = {
    ("delete", "/api/jobs/{job_id}"),
    ("delete", "/api/webhooks/endpoints/{endpoint_id}"),
    ("post", "/api/diffusion"),
    ("post", "/api/jobs"),
    ("post", "/api/jobs/{job_id}/cancel"),
    ("post", "/api/jobs/{job_id}/retry"),
    ("post", "/api/uploads"),
    ("post", "/api/webhooks/deliveries/{delivery_id}/redeliver"),
    ("post", "/api/webhooks/endpoints"),
    ("post", "/api/webhooks/endpoints/{endpoint_id}/rotate"),
    ("post", "/api/webhooks/secrets"),
    ("put", "/api/uploads/{upload_id}"),
}
AUTOMATIC1111_READ = {
    ("get", "/sdapi/v1/cmd-flags"),
    ("get", "/sdapi/v1/embeddings"),
    ("get", "/sdapi/v1/extensions"),
    ("get", "/sdapi/v1/face-restorers"),
    ("get", "/sdapi/v1/hypernetworks"),
    ("get", "/sdapi/v1/latent-upscale-modes"),
    ("get", "/sdapi/v1/loras"),
    ("get", "/sdapi/v1/memory"),
    ("get", "/sdapi/v1/options"),
    ("get", "/sdapi/v1/progress"),
    ("get", "/sdapi/v1/prompt-styles"),
    ("get", "/sdapi/v1/realesrgan-models"),
    ("get", "/sdapi/v1/samplers"),
    ("get", "/sdapi/v1/schedulers"),
    ("get", "/sdapi/v1/script-info"),
    ("get", "/sdapi/v1/scripts"),
    ("get", "/sdapi/v1/sd-models"),
    ("get", "/sdapi/v1/sd-vae"),
    ("get", "/sdapi/v1/upscalers"),
}
AUTOMATIC1111_SUBMIT = {
    ("post", "/sdapi/v1/img2img"),
    ("post", "/sdapi/v1/interrupt"),
    ("post", "/sdapi/v1/options"),
    ("post", "/sdapi/v1/png-info"),
    ("post", "/sdapi/v1/refresh-checkpoints"),
    ("post", "/sdapi/v1/skip"),
}

OPENAI_SUBMIT = {("post", "/v1/images/edits")}

REPLICATE_READ = {
    ("get", "/v1/account"),
    ("get", "/v1/files"),
    ("get", "/v1/files/{file_id}"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{name}"),
    ("get", "/v1/models/{owner}/{name}/versions"),
    ("get", "/v1/models/{owner}/{name}/versions/{version_id}"),
    ("get", "/v1/predictions"),
    ("get", "/v1/predictions/{prediction_id}"),
}
REPLICATE_SUBMIT = {
    ("delete", "/v1/files/{file_id}"),
    ("post", "/v1/files"),
    ("post", "/v1/models/{owner}/{name}/predictions"),
    ("post", "/v1/predictions"),
    ("post", "/v1/predictions/{prediction_id}/cancel"),
}
REPLICATE_BOTH = {("get", "/v1/webhooks/default/secret")}
"""By GET, and for keys that may submit all the same."""

READ |= AUTOMATIC1111_READ | REPLICATE_READ
SUBMIT |= AUTOMATIC1111_SUBMIT | OPENAI_SUBMIT | REPLICATE_SUBMIT
BY_LINK = {
    ("get", "/api/jobs/{job_id}"),
    ("get", "/api/jobs/{job_id}/events"),
    ("get", "/api/jobs/{job_id}/result"),
    ("put", "/api/uploads/{upload_id}"),
}
"""Those that look at a token by themselves; it is wrong here, so they answer that nothing is there."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    """A gateway that needs keys."""
    with gateway_service(tmp_path, auth="keys") as gateway:
        yield gateway


def address(path: str) -> str:
    return re.sub(r"\{\w+\}", "00000000-0000-7000-8000-00000000abcd", path)


def test_every_route_stands_in_one_of_these_lists(service: GatewayService) -> None:
    described = service.app.openapi()["paths"]
    routes = {(method, path) for path, item in described.items() for method in item}
    assert routes == OPEN | READ | SUBMIT | REPLICATE_BOTH
    assert not (OPEN & READ) | (OPEN & SUBMIT) | (READ & SUBMIT)


@pytest.mark.parametrize("token", ["", "?token=1.x"])
@pytest.mark.parametrize("scope", ["", "read", "submit", "admin"])
def test_each_route_lets_in_who_has_its_scope(service: GatewayService, scope: str, token: str) -> None:
    headers = {"Last-Event-ID": "none of ours"} | (service.key("alice", scope) if scope else {})  # no endless stream
    for method, path in sorted(OPEN | READ | SUBMIT):
        answer = service.client.request(method, address(path) + token, headers=headers)
        needed = "read" if (method, path) in READ else "submit"
        if (method, path) in OPEN or scope in ("admin", needed):
            assert answer.status_code not in (401, 403, 500), (method, path, answer.text)
        elif scope:
            assert answer.status_code == 403, (method, path, answer.text)
            assert f"scope {needed}" in answer.text, (method, path)
        elif token and (method, path) in BY_LINK:
            problem(answer, 404, "not-found")
        else:
            assert answer.status_code == 401, (method, path, answer.text)
            assert "Send a key that is good" in answer.text, (method, path)


@pytest.mark.parametrize(
    ("scopes", "status"), [([], 401), (["read"], 403), (["submit"], 403), (["read", "submit"], 200), (["admin"], 200)]
)
def test_a_secret_is_shown_to_who_may_read_and_submit(service: GatewayService, scopes: list[str], status: int) -> None:
    headers = service.key("alice", *scopes) if scopes else {}
    for method, path in REPLICATE_BOTH:
        assert service.client.request(method, path, headers=headers).status_code == status


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PATCH", "HEAD", "PROPFIND"])
def test_a_method_that_no_route_has_opens_nothing(service: GatewayService, method: str) -> None:
    for path in {path for _, path in READ | SUBMIT}:
        assert service.client.request(method, address(path)).status_code == 401, (method, path)
