"""Addresses that others chose: what leads inside, or can be read in two ways, is refused by its spelling alone."""

import pytest

from sfumato.net.addresses import Allowed
from sfumato.net.targets import RefusedUrl, Target

NOTHING = Allowed()
INSIDE = [
    "http://127.0.0.1/",
    "http://127.1.2.3:8000/x",
    "http://0.0.0.0/",
    "http://0.1.2.3/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://100.64.0.1/",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/machine",
    "http://192.0.0.192/opc/v2/",
    "http://192.0.2.1/",
    "http://192.88.99.1/",
    "http://198.18.0.1/",
    "http://198.51.100.7/",
    "http://203.0.113.7/",
    "http://224.0.0.1/",
    "http://239.255.255.250/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fec0::1]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fd20:ce::254]/",
    "http://[ff02::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:8.8.8.8]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:53aa:64c:0:0:80ff:fffe]/",
    "http://[2001:db8::1]/",
    "http://[3fff::1]/",
    "http://[5f00::1]/",
    "http://[100::1]/",
    "http://[2606:4700::5efe:7f00:1]/",
    "http://[2606:4700::200:5efe:a9fe:a9fe]/",
]
ODD = [
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://127.1/",
    "http://127.0.1/",
    "http://1.1/",
    "http://8.8.8.8./",
    "http://127.0.0.1./",
    "http://127.0.0.01/",
    "http://127.0.0.1.0x1/",
    "http://256.256.256.256/",
    "http://%31%32%37.0.0.1/",
    "http://１２７.0.0.1/",
    "http://127。0。0。1/",
    "http://ⓛocalhost/",
    "http://[::1/",
    "http://::1/",
    "http://[127.0.0.1]/",
    "http://[v1.x]/",
    "http://[2606:4700::1111]example.com/",
    "http://[2606:4700::1111]example.com:80/",
    "http://user@example.com/",
    "http://user:password@example.com/",
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1#@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http://example.com\t/",
    "http://exam\nple.com/",
    "http://exam\rple.com/",
    " http://example.com/",
    "http://example.com/ x",
    "http://example.com/\0",
    "http://example..com/",
    "http://-example.com/",
    "http://.example.com/",
    "http:///x",
    "http:example.com",
    "http:/example.com",
    "//example.com/",
    "example.com",
    "",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com:70/",
    "dict://example.com/",
    "javascript:alert(1)",
    "data:text/plain,x",
    "unix:/run/docker.sock",
    "http+unix://%2Frun%2Fdocker.sock/",
    "http://example.com:/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:x/",
    "http://example.com:-1/",
    "http://example.com:22/",
    "http://example.com:25/",
    "http://localhost/",
    "http://LOCALHOST./",
    "http://a.localhost/",
    "http://printer.local/",
    "http://metadata.google.internal/",
    "http://metadata/",
    "http://postgres:5432/",
    "http://" + "a" * 64 + ".com/",
    "http://" + "a." * 130 + "com/",
    "http://example.com/" + "a" * 2000,
]


@pytest.mark.parametrize("url", [*INSIDE, *ODD])
def test_what_leads_inside_or_is_oddly_spelled_is_refused(url: str) -> None:
    with pytest.raises(RefusedUrl):
        Target.of(url, NOTHING)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", Target("https", "example.com", 443, "/")),
        ("https://Example.COM./hook?a=1&b=%2F#part", Target("https", "example.com", 443, "/hook?a=1&b=%2F")),
        ("http://example.com:8080/x", Target("http", "example.com", 8080, "/x")),
        ("https://xn--bcher-kva.example.com/", Target("https", "xn--bcher-kva.example.com", 443, "/")),
        ("http://8.8.8.8/", Target("http", "8.8.8.8", 80, "/")),
        ("https://[2606:4700:4700::1111]:8443/", Target("https", "2606:4700:4700::1111", 8443, "/")),
    ],
)
def test_public_address_is_taken_apart(url: str, target: Target) -> None:
    assert Target.of(url, NOTHING) == target


def test_host_header_names_the_port_only_where_it_is_not_the_usual_one() -> None:
    assert Target.of("https://[2606:4700:4700::1111]/", NOTHING).authority == "[2606:4700:4700::1111]"
    assert Target.of("https://example.com:80/", NOTHING).authority == "example.com:80"


def test_what_the_configuration_allows_is_taken() -> None:
    allowed = Allowed.parse("10.0.0.0/8, fd00::/8,Receiver")

    assert Target.of("http://10.1.2.3/", allowed).host == "10.1.2.3"
    assert Target.of("http://[fd00::1]/", allowed).host == "fd00::1"
    assert Target.of("http://receiver:8080/", allowed).host == "receiver"
    for refused in ("http://127.0.0.1/", "http://[::ffff:10.1.2.3]/", "http://0x0a.1.2.3/"):
        with pytest.raises(RefusedUrl):
            Target.of(refused, allowed)


@pytest.mark.parametrize(
    "wrong", ["10.0.0.0/33", "10.0.0.1/8", "a b", "http://x", "1.2.3", "127.0x1", "a..b", "récepteur"]
)
def test_what_is_neither_network_nor_name_is_not_allowed(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no network"):
        Allowed.parse(wrong)


@pytest.mark.parametrize("name", ["receiver1", "db-2.internal", "a_b.c3"])
def test_a_name_may_end_with_a_digit(name: str) -> None:
    assert Target.of(f"http://{name}/", Allowed.parse(name)).host == name
