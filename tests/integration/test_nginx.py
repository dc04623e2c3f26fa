"""The door before the gateways: a real nginx with deploy/nginx.conf, before tiny servers and before real gateways."""

import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from sfumato.cluster.nginx import fill_in, find_program, nginx, template
from sfumato.cluster.server import Recipe, Server, free_ports, running
from sfumato.gateway.problems import PROBLEMS, problem_type
from tests.sample_pictures import picture
from tests.service import post_picture
from tests.upstream import Upstream, ask, upstream

pytestmark = pytest.mark.server

UPLOAD_BYTES = 60_000
MOST_BYTES = UPLOAD_BYTES * 4 // 3 + 1024 * 1024


@contextmanager
def door(folder: Path, *gateways: str, **options: Any) -> Iterator[str]:
    """nginx before these gateways; its address."""
    (port,) = free_ports(1)
    with running(nginx(folder, port, gateways, max_upload_bytes=UPLOAD_BYTES, **options), folder / "nginx.log"):
        yield f"127.0.0.1:{port}"


@pytest.fixture
def two() -> Iterator[tuple[Upstream, Upstream]]:
    with upstream() as first, upstream() as second:
        yield first, second


def problem(answer: tuple[int, dict[str, str], bytes], slug: str) -> dict[str, Any]:
    """The body of an answer that must be this problem, in the one shape that all have."""
    status, headers, body = answer
    case = PROBLEMS[slug]
    assert (status, headers["Content-Type"]) == (case.status, "application/problem+json"), body
    told: dict[str, Any] = json.loads(body)
    assert (told["type"], told["status"], told["title"]) == (problem_type(slug), case.status, case.title)
    assert told["detail"]
    return told


# Tiny servers


def test_requests_are_shared_out(server_folder: Path, two: tuple[Upstream, Upstream]) -> None:
    with door(server_folder, *(each.address for each in two)) as address:
        servers = {json.loads(ask(address, "GET", "/api/jobs")[2])["server"] for _ in range(20)}

    assert servers == {each.address for each in two}


def test_gateway_hears_who_asked_and_for_what_from_the_door_alone(
    server_folder: Path, two: tuple[Upstream, Upstream]
) -> None:
    lies = {
        "X_Forwarded_For": "6.6.6.6",
        "X_Forwarded_Proto": "https",
        "X_Forwarded_Host": "evil",
        "Forwarded": "for=6",
    }
    with door(server_folder, two[0].address) as address:
        _, _, body = ask(address, "GET", "/", Host="pictures.example:8443", **lies)

    heard = {name: value for name, value in json.loads(body)["headers"].items() if "orward" in name or name == "Host"}
    assert heard == {"Host": "pictures.example:8443", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http"}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_gateway_that_dies_over_a_request_costs_the_client_nothing(
    server_folder: Path, two: tuple[Upstream, Upstream], method: str
) -> None:
    two[0].dying = True
    with door(server_folder, *(each.address for each in two)) as address:
        statuses = [ask(address, method, "/api/jobs/1")[0] for _ in range(10)]

    assert statuses == [200] * 10
    assert two[0].came


def test_post_that_was_sent_is_never_sent_again(server_folder: Path, two: tuple[Upstream, Upstream]) -> None:
    two[0].dying = two[1].dying = True
    with door(server_folder, *(each.address for each in two)) as address:
        answer = ask(address, "POST", "/api/diffusion", b"picture")

    assert problem(answer, "try-again")
    assert answer[1]["Retry-After"] == "1"
    assert len(two[0].came + two[1].came) == 1


def test_post_goes_to_another_gateway_when_the_first_can_not_be_reached(
    server_folder: Path, two: tuple[Upstream, Upstream]
) -> None:
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    with door(server_folder, nobody, two[0].address) as address:
        answers = [json.loads(ask(address, "POST", "/api/diffusion", b"picture")[2]) for _ in range(6)]

    assert [answer["bytes"] for answer in answers] == [7] * 6
    assert len(two[0].came) == 6


def test_without_any_gateway_a_client_is_told_to_try_again(server_folder: Path) -> None:
    with upstream() as only, door(server_folder, only.address) as address:
        only.dying = True
        answer = ask(address, "GET", "/api/jobs")

    assert problem(answer, "try-again")
    assert answer[1]["Retry-After"] == "1"


def test_each_line_of_a_stream_arrives_when_it_is_sent(server_folder: Path, two: tuple[Upstream, Upstream]) -> None:
    with door(server_folder, two[0].address) as address:
        connection = http.client.HTTPConnection(address, timeout=10)
        connection.request("GET", "/api/jobs/1/events")
        lines = connection.getresponse()
        for number in range(3):
            assert lines.readline() == f"data: {number}\n".encode()
            assert lines.readline() == b"\n"
            two[0].go_on.set()
        connection.close()


def test_body_over_the_limit_is_refused_before_it_is_sent(server_folder: Path, two: tuple[Upstream, Upstream]) -> None:
    with door(server_folder, two[0].address) as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = f"POST /api/diffusion HTTP/1.1\r\nHost: x\r\nContent-Length: {MOST_BYTES + 1}\r\n\r\n"
            connection.sendall(head.encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            told = problem((answer.status, dict(answer.getheaders()), answer.read()), "body-too-large")

        assert json.loads(ask(address, "POST", "/api/diffusion", b"x" * MOST_BYTES)[2])["bytes"] == MOST_BYTES

    assert told["max_bytes"] == MOST_BYTES
    assert len(two[0].came) == 1


def test_head_that_is_too_large_is_refused_in_our_words(server_folder: Path, two: tuple[Upstream, Upstream]) -> None:
    with door(server_folder, two[0].address) as address:
        assert problem(ask(address, "GET", "/?prompt=" + "x" * 70_000), "headers-too-large")
        assert problem(ask(address, "GET", "/", X_Long="x" * 70_000), "headers-too-large")


def test_one_address_that_asks_for_too_much_is_told_so(server_folder: Path, two: tuple[Upstream, Upstream]) -> None:
    with door(server_folder, two[0].address, rate_per_s=1) as address:
        answers = [ask(address, "GET", "/api/jobs") for _ in range(20)]

    assert answers[0][0] == 200
    refused = next(answer for answer in answers if answer[0] != 200)
    assert problem(refused, "too-many-requests")
    assert refused[1]["Retry-After"] == "1"


def test_numbers_of_one_gateway_are_not_shown(server_folder: Path, two: tuple[Upstream, Upstream]) -> None:
    with door(server_folder, two[0].address) as address:
        assert problem(ask(address, "GET", "/metrics"), "no-such-route")


def test_killed_door_opens_again(server_folder: Path, two: tuple[Upstream, Upstream]) -> None:
    (port,) = free_ports(1)
    recipe = nginx(server_folder, port, [two[0].address], max_upload_bytes=UPLOAD_BYTES)
    with running(recipe, server_folder / "nginx.log") as server:
        server.kill()
        server.start()
        assert ask(f"127.0.0.1:{port}", "GET", "/")[0] == 200


def test_template_as_compose_fills_it_in_is_one_that_nginx_takes(server_folder: Path) -> None:
    compose = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yaml").read_text())
    given = compose["services"]["nginx"]["environment"] | {"NGINX_FOLDER": str(server_folder)}
    values = {name.removeprefix("NGINX_"): str(value) for name, value in given.items()}
    (server_folder / "nginx.conf").write_text(fill_in(template(), values))

    asked = [
        str(find_program()),
        "-t",
        "-p",
        str(server_folder),
        "-c",
        str(server_folder / "nginx.conf"),
        "-e",
        "stderr",
    ]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


# Real gateways


def gateway(folder: Path, port: int, **settings: str) -> Recipe:
    environment = {
        "SFUMATO_DATA_DIR": str(folder / "data"),
        "SFUMATO_PORT": str(port),
        "SFUMATO_MAX_UPLOAD_BYTES": str(UPLOAD_BYTES),
    } | settings
    command = (sys.executable, "-m", "sfumato", "gateway")
    return Recipe(f"gateway {port}", command, lambda: ask(f"127.0.0.1:{port}", "GET", "/readyz")[0] == 200, environment)


@pytest.fixture
def gateways(server_folder: Path) -> Iterator[list[Server]]:
    """Two, over one folder."""
    with ExitStack() as servers:
        ports = free_ports(2)
        yield [
            servers.enter_context(running(gateway(server_folder, port), server_folder / f"gateway-{port}.log"))
            for port in ports
        ]


def addresses(gateways: list[Server]) -> list[str]:
    return [f"127.0.0.1:{server.recipe.name.split()[1]}" for server in gateways]


def test_links_begin_with_the_address_that_the_client_used(server_folder: Path, gateways: list[Server]) -> None:
    with door(server_folder, *addresses(gateways)) as address:
        status, accepted = post_picture(f"http://{address}", picture(), model_name="restyle", prompt="neon")
        assert status == 202
        link = re.fullmatch(rf"http://{address}(/api/jobs/.*)", accepted["result_url"])
        assert link is not None

        # Each gateway knows the job, whichever took it; and nobody makes a link look safer than it is.
        _, _, body = ask(address, "GET", link[1].replace("/result", ""), X_Forwarded_Proto="https", Host="a.example")
        assert json.loads(body)["result_url"].startswith("http://a.example/api/")


@pytest.mark.parametrize(("trusted", "scheme"), [("10.0.0.0/8, 127.0.0.1", "https"), ("10.0.0.0/8", "http")])
def test_gateway_believes_the_proxies_it_was_told_of_and_no_others(
    server_folder: Path, trusted: str, scheme: str
) -> None:
    (port,) = free_ports(1)
    with running(gateway(server_folder, port, SFUMATO_TRUSTED_PROXIES=trusted), server_folder / "gateway.log"):
        _, _, body = ask(f"127.0.0.1:{port}", "POST", "/api/uploads", Host="a.example", X_Forwarded_Proto="https")

    assert json.loads(body)["put_url"].startswith(f"{scheme}://a.example/api/uploads/")


def test_killed_gateway_gives_no_error_for_what_may_be_asked_again(server_folder: Path, gateways: list[Server]) -> None:
    with door(server_folder, *addresses(gateways)) as address:
        statuses = [ask(address, "GET", "/api/models")[0] for _ in range(10)]
        gateways[0].kill()
        statuses += [ask(address, "GET", "/api/models")[0] for _ in range(30)]
        status, _ = post_picture(f"http://{address}", picture(), model_name="restyle", prompt="neon", key="one")

    assert statuses == [200] * 40
    assert status == 202


def test_picture_over_the_limit_is_refused_whoever_sees_it_first(server_folder: Path, gateways: list[Server]) -> None:
    with door(server_folder, *addresses(gateways)) as address:
        for size in (UPLOAD_BYTES + 1, MOST_BYTES + 1):
            body = b"\x89PNG\r\n\x1a\n" + b"x" * size
            query = "/api/diffusion?model_name=restyle&prompt=neon"
            assert problem(ask(address, "POST", query, body, Content_Type="image/png"), "body-too-large")
