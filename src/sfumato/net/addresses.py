"""Which addresses lie on the public internet, and which others the configuration allows. Pure."""

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Self

__all__ = ["NAME", "NUMBER", "Allowed", "address_in", "is_public"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Spelled out, because what Python takes for global differs between its versions.
REFUSED_V4: Final = tuple(
    IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        # Azure's own services answer every machine there at this one, although it looks like any other.
        "168.63.129.16/32",
    )
)
GLOBAL_V6: Final = IPv6Network("2000::/3")
"""All else is local, multicast, reserved, or holds an IPv4 address: mapped, compatible, translated (NAT64)."""
REFUSED_V6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo and other protocols' own
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)
NAME: Final = re.compile(
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
)
"""A host name in lower case, without the dot that may end it."""
NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""How the last part of an address in an odd spelling looks, and of no name."""
ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)
"""What stands before the IPv4 address in an interface's id."""


def is_public(address: Address) -> bool:
    """Whether anybody on the internet may be meant by it, and nobody inside."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in REFUSED_V4)
    holds_v4 = (int(address) >> 32) & 0xFFFF_FFFF in ISATAP
    return (
        address in GLOBAL_V6
        and address.is_global
        and not holds_v4
        and not any(address in network for network in REFUSED_V6)
    )


def address_in(host: str) -> Address | None:
    """The address that `host` is in its one regular spelling; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Allowed:
    """Networks and host names (lower case) that may be asked although they are not public."""

    networks: tuple[Network, ...] = ()
    names: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a comma separated list. Raises ValueError for what is neither a network nor a name."""
        networks: list[Network] = []
        names: set[str] = set()
        for part in filter(None, (each.strip().lower() for each in text.split(","))):
            try:
                networks.append(ipaddress.ip_network(part))
            except ValueError:
                # What ends like an address was meant to be one.
                if not NAME.fullmatch(part) or NUMBER.fullmatch(part.rpartition(".")[2]):
                    raise ValueError(f"{part!r} is no network, such as 10.0.0.0/8, and no host name") from None
                names.add(part)
        return cls(tuple(networks), frozenset(names))

    def takes(self, host: str, address: Address) -> bool:
        """Whether a request to `host` may go to `address`."""
        if is_public(address) or host in self.names:
            return True
        return any(address.version == network.version and address in network for network in self.networks)
