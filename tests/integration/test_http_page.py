"""The page as the gateway serves it: whole, small, from here alone."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfumato.config import load_settings
from sfumato.gateway.page import FILES, policy
from tests.integration.gateway_service import GatewayService, gateway_service, problem
from tests.sample_pictures import picture

MOST_BYTES = 150_000
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
}


def files() -> list[Path]:
    return [file for file in FILES.rglob("*") if file.is_file()]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[GatewayService]:
    with gateway_service(tmp_path) as gateway:
        yield gateway


def test_all_of_the_page_is_under_150_kb() -> None:
    assert sum(file.stat().st_size for file in files()) < MOST_BYTES


def test_no_file_of_the_page_is_too_long_to_be_read() -> None:
    lines = {file.name: len(file.read_text().splitlines()) for file in files() if file.suffix in (".js", ".html")}
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_nothing_of_the_page_comes_from_elsewhere() -> None:
    for file in files():
        if file.suffix in TYPES and file.suffix != ".jpg":
            text = file.read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"(https?:)?//[a-z0-9]", text.replace("// ", "")), file.name


def test_all_addresses_are_relative_so_that_the_page_works_below_a_prefix() -> None:
    for file in files():
        if file.suffix in (".js", ".html", ".css"):
            assert not re.search(r"""["'`(]/(?:api|static|docs)""", file.read_text()), file.name


def test_no_markup_is_made_of_text() -> None:
    for file in files():
        if file.suffix == ".js":
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", file.read_text())


def test_each_file_is_served_with_its_type_and_the_policy(service: GatewayService) -> None:
    for file in files():
        answer = service.client.get(f"/static/{file.relative_to(FILES)}")
        assert answer.content == file.read_bytes()
        # Python's own table has the older name of this type before 3.12.
        kind = answer.headers["content-type"].replace("application/javascript", "text/javascript")
        assert kind == TYPES[file.suffix]
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"


def test_the_page_is_asked_for_anew_and_sent_once(service: GatewayService) -> None:
    first = service.client.get("/")
    assert first.status_code == 200
    assert first.content == (FILES / "index.html").read_bytes()
    assert first.headers["cache-control"] == "no-cache"
    again = service.client.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert service.client.head("/").status_code == 200


def test_what_is_no_file_of_the_page_is_a_problem(service: GatewayService) -> None:
    for path in ("/static/nothing.js", "/static/../app.py", "/static/%2e%2e/app.py", "/static/"):
        problem(service.client.get(path), 404, "no-such-route")


def test_pictures_may_come_from_the_store_only_where_links_lead_there(tmp_path: Path) -> None:
    store = {"s3_bucket": "img", "s3_public_url": "https://store.example.com:9000/path"}
    proxied = load_settings(data_dir=tmp_path, **store)
    redirected = load_settings(data_dir=tmp_path, result_delivery="redirect", **store)
    assert "img-src 'self' blob: data:;" in policy(proxied)
    assert "img-src 'self' blob: data: https://store.example.com:9000;" in policy(redirected)
    assert "connect-src 'self';" in policy(redirected)


def test_the_input_is_given_to_its_owner_and_no_link_opens_it(tmp_path: Path) -> None:
    with gateway_service(tmp_path, auth="keys") as service:
        alice = service.key("alice")
        answer = service.accepted(headers=alice)
        service.record()
        token = answer["result_url"].partition("?")[2]
        place = f"/api/jobs/{answer['id']}/input"

        given = service.client.get(place, headers=alice)
        assert (given.status_code, given.content) == (200, picture())
        assert given.headers["content-type"] == "image/png"
        problem(service.client.get(f"{place}?{token}"), 401, "unauthorized")
        problem(service.client.get(f"{place}?{token}", headers=service.key("bob")), 404, "not-found")


def test_an_input_that_is_gone_is_told_as_gone(service: GatewayService) -> None:
    job_id = service.accepted()["id"]
    service.record()
    service.world.blobs.clear()
    problem(service.client.get(f"/api/jobs/{job_id}/input"), 410, "picture-gone")


def test_the_bundled_model_suggests_the_words_that_its_card_praises(tmp_path: Path) -> None:
    with gateway_service(tmp_path, listed="[models.restyle]\n[models.quick]\nbackend = 'simulated'\n") as service:
        words = {each["name"]: each["words"] for each in service.client.get("/api/models").json()["models"]}
    assert words["restyle"]["styles"][:3] == ["watercolor", "pencil sketch", "ink drawing"]
    assert "night" in words["restyle"]["moods"]
    assert not {"oil painting", "pixel art", "vivid"} & {word for kind in words["restyle"].values() for word in kind}
    assert words["quick"] == {}
