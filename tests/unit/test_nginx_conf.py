"""deploy/nginx.conf agrees with what the gateways do behind it."""

import re

import pytest

from sfumato.cluster.nginx import fill_in, max_body_bytes, template
from sfumato.config import Settings
from sfumato.gateway.uploads import FORM_OVERHEAD_BYTES, Limits

CONF = template()


@pytest.mark.parametrize("upload", [1, 60_000, Settings().max_upload_bytes, 500_000_000])
def test_every_body_that_a_gateway_takes_is_let_through(upload: int) -> None:
    assert max_body_bytes(upload) >= Limits(upload, 1).max_json_bytes
    assert max_body_bytes(upload) >= upload + FORM_OVERHEAD_BYTES


def test_who_waits_for_a_job_is_waited_for() -> None:
    usual, of_calls = map(int, re.findall(r"proxy_read_timeout (\d+)s;", CONF))
    assert usual > Settings().max_wait_s
    assert of_calls > Settings().call_wait_s


def test_variable_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError, match="LISTEN"):
        fill_in("listen ${NGINX_LISTEN};", {"FOLDER": "f"})


def test_own_variables_of_nginx_are_left_alone() -> None:
    assert fill_in("$http_host ${NGINX_BURST} $scheme", {"BURST": "7"}) == "$http_host 7 $scheme"
