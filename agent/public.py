"""Which addresses are public: anybody's machine out in the internet, and nothing that only we can reach.

    IPv4   all but what IANA keeps for special purposes, and what clouds put beside their machines
    IPv6   what is given out (2000::/3) but for documents, experiments and tunnels
    ::ffff:a.b.c.d, 64:ff9b::a.b.c.d        as the IPv4 address that they stand for

The tables are written out: what the standard library calls global has changed from one patch release to the next.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

NOT_PUBLIC_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network; 0.0.0.0 is this machine
            "10.0.0.0/8",
            "100.64.0.0/10",  # behind a provider's NAT; Alibaba's metadata
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's own, for its machines only
            "169.254.0.0/16",  # link-local; metadata nearly everywhere
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocols; Oracle's metadata
            "192.0.2.0/24",
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and the broadcast address
        ),
    )
)
GIVEN_OUT_6 = IPv6Network("2000::/3")
NOT_PUBLIC_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocols, Teredo among them
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "3fff::/20",
        ),
    )
)
NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether it is an address that anybody could reach."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_4)
    inner = embedded(address)
    if inner is not None:
        return is_public(inner)
    plain = IPv6Address(int(address))  # without the zone, which no public address has
    return plain in GIVEN_OUT_6 and not any(plain in network for network in NOT_PUBLIC_6)


def embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that is meant, where an IPv6 one only carries it through a network."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFFFFFF) if IPv6Address(int(address)) in NAT64 else None


def literal(host: str) -> Address | None:
    """The address that a host is already, also in the ways in which only C libraries read one: `127.1`, `0x7f000001`.

    None for a name.
    """
    import socket  # imported on use: a name is looked at once, at the start

    bare = host.removeprefix("[").removesuffix("]")
    try:
        return ip_address(bare)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(bare.removesuffix(".")))
    except OSError:
        return None
