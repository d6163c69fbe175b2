"""Which addresses are public.

A list of links may come from anybody, and must not lead into the network where it is read.
"""

from __future__ import annotations

import ipaddress
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# IPv6 networks whose last 32 bits are an IPv4 address: compatible, mapped and translated ones, and NAT64's (RFC 6052).
WRAPPED = tuple(map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
NAT64_OF_A_SITE = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215: where the IPv4 address lies is up to the site
ISATAP = (0x00005EFE, 0x02005EFE)  # the third 32 bits of an address whose last 32 are an IPv4 address


def private_address(host: str) -> str | None:
    """The first address of a host that is not public (loopback, private, link-local, reserved), if any.

    A name that does not resolve has none: the request will say so itself.
    """
    try:
        addresses = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        return None
    return next((str(address) for *_, (address, *_rest) in addresses if not is_public(str(address))), None)


def is_public(address: str) -> bool:
    """Whether an address, and any IPv4 address that it stands for, can be reached by everybody."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return all(one.is_global and not one.is_multicast and not _of_a_site(one) for one in _meant(ip))


def _meant(ip: Address) -> list[Address]:
    """The addresses that packets to this one may reach."""
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    last = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if any(ip in network for network in WRAPPED):
        return [last]
    if ip.sixtofour is not None:
        return [ip.sixtofour]
    if (int(ip) >> 32) & 0xFFFFFFFF in ISATAP:
        return [ip, last]
    return [ip, *(ip.teredo or ())]


def _of_a_site(ip: Address) -> bool:
    """Whether it is an IPv6 address of one site, of which some versions of Python say that it is public."""
    return isinstance(ip, ipaddress.IPv6Address) and (ip.is_site_local or ip in NAT64_OF_A_SITE)
