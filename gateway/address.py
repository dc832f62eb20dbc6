"""Where a request comes from, as far as counting is concerned.

203.0.113.7            203.0.113.7
::ffff:203.0.113.7     203.0.113.7        the same machine, written as IPv6
2001:db8:1:2:3::4      2001:db8:1:2::     one household or machine has a whole /64
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

IPAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HOUSEHOLD = 64  #: bits of an IPv6 address that say whose it is


def normalised(text: str) -> IPAddress | None:
    """The address, an IPv4 one out of its IPv6 form; None for what is no address."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def bucket(text: str) -> str:
    """The key under which an address is counted."""
    address = normalised(text)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, HOUSEHOLD), strict=False).network_address)
    return str(address or "unknown")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host name or address."""
    address = normalised(host)
    return address.is_loopback if address else host.lower() == "localhost"


def within(text: str, networks: Iterable[Network]) -> bool:
    """Whether an address lies in one of the networks."""
    address = normalised(text)
    return address is not None and any(address in network for network in networks)
