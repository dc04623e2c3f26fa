"""Reading an address that somebody else chose, strictly: what can be read in two ways is refused. Pure."""

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from sfumato.core.errors import SfumatoError
from sfumato.net.addresses import NAME, NUMBER, Allowed, address_in

__all__ = ["MAX_URL_CHARS", "RefusedUrl", "Target"]

MAX_URL_CHARS: Final = 2_000
BEHIND: Final = re.compile(r"(:[0-9]+)?")
LOCAL_NAMES: Final = ("localhost", "local", "internal", "localdomain", "home.arpa")
BAD_PORTS: Final = frozenset(
    (
        *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109),
        *(110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530),
        *(531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045),
        *(4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
    )
)
"""Those that no browser asks (WHATWG's fetch): what listens there might take a request for a message of its own."""


class RefusedUrl(SfumatoError):
    """Nothing is sent to this address; the detail says why and what to change."""

    slug = "refused-url"
    title = "Nothing is sent to this address"


@dataclass(frozen=True, slots=True)
class Target:
    """An address taken apart. `host` is lower case, an IPv6 one without brackets; `path` has the query with it."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What stands in the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"

    @classmethod
    def of(cls, url: str, allowed: Allowed) -> "Target":
        """`url` taken apart; where its host is an address or a local name, that is checked too.

        Raises:
            RefusedUrl: it can't be read in one way only, or leads where nothing may be sent.
        """
        if len(url) > MAX_URL_CHARS:
            raise RefusedUrl(f"It has {len(url)} characters; at most {MAX_URL_CHARS} are taken.")
        # Parsers differ in what they make of these, so they are refused before any of them looks.
        if not url.isascii() or not url.isprintable() or any(sign in url for sign in ' \\"<>^`{|}'):
            raise RefusedUrl("It has characters that must be percent-encoded (a name's in punycode).")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise RefusedUrl(f"It can't be read: {error}.") from error
        scheme = parts.scheme.lower()
        if scheme not in ("http", "https") or not url[len(scheme) :].startswith("://"):
            raise RefusedUrl("It must begin with https:// or http://.")
        if "@" in parts.netloc:
            raise RefusedUrl("It must not hold a user or password; put a secret into its path or query.")
        if parts.netloc.endswith(":") or (port is not None and (port < 1 or port in BAD_PORTS)):
            raise RefusedUrl("Its port is none that HTTP is spoken on; use another one.")
        host = _host(parts.netloc, parts.hostname or "", allowed)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls("https" if scheme == "https" else "http", host, port or (443 if scheme == "https" else 80), path)


def _host(netloc: str, host: str, allowed: Allowed) -> str:
    host = host.lower()
    address = None if "%" in host else address_in(host)
    bracketed = netloc.startswith("[")
    # Parsers differ in whether what stands between the bracket and the port is a name.
    if bracketed != (address is not None and address.version == 6) or not BEHIND.fullmatch(netloc.partition("]")[2]):
        raise RefusedUrl("Its host is no address or name.")
    if address is not None:
        if not allowed.takes(host, address):
            raise RefusedUrl("Its host is not an address on the public internet.")
        return host
    bare = host.removesuffix(".")
    if not NAME.fullmatch(bare):
        raise RefusedUrl("Its host is no address or name.")
    if NUMBER.fullmatch(bare.rpartition(".")[2]):
        raise RefusedUrl("Its host is an address in an odd spelling; write it as four decimal numbers.")
    local = "." not in bare or any(bare == name or bare.endswith(f".{name}") for name in LOCAL_NAMES)
    if local and bare not in allowed.names and not allowed.networks:
        raise RefusedUrl("Its host is a name of a local network, not one on the public internet.")
    return bare
