"""What do the texts that people write as hosts and URLs name, and which addresses are for nobody to reach?

There is one spelling in which hosts are compared, and what two parsers could read differently is refused. Knows nothing
of who asks, and of no settings: that is `access`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from pointsman.api.conditions import Reason
from pointsman.errors import Terminal

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]

_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# What inet_aton reads as an address and a person does not: 2130706433, 0177.1, 0x7f.0.0.1.
_NUMERIC: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*")

API_SERVER: Final = frozenset(
    {
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    }
)
"""The names of the API server in its own cluster."""

# Where clouds answer with credentials. Most are in 169.254.0.0/16, which is refused as link-local anyway.
_METADATA: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.169.254/32",
        "fd00:ec2::/32",  # Amazon: metadata, time, DNS and pod identity.
        "fd20:ce::254/128",  # Google.
        "fd00:42::42/128",  # Scaleway.
        "100.100.100.200/32",  # Alibaba.
        "168.63.129.16/32",  # Azure's host agent, an address of the public range.
        "192.0.0.192/32",  # Oracle.
    )
)

NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""What stands for an IPv4 address, by which it is judged."""
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host as the system resolves it; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_label(text: str) -> bool:
    """Return whether a text may be one part of a host's name, in lower case."""
    return _LABEL.fullmatch(text) is not None


def split_url(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL; Terminal(ENDPOINT_NOT_ALLOWED) for what is not plain http(s).

    Whatever two parsers could read differently is refused: credentials, backslashes, blanks, other alphabets.
    """
    problem = ""
    if not url.isascii() or re.search(r"[\s\\\x00-\x1f\x7f]", url):
        problem = "has characters that a URL may not have"
    else:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            problem = "cannot be read"
        else:
            if parts.scheme not in ("http", "https"):
                problem = "is neither http nor https"
            elif "@" in parts.netloc:
                problem = "carries credentials; wanted them in a Secret"
            elif parts.fragment or parts.query:
                problem = "carries a query or a fragment"
            elif not host or port == 0:
                problem = "names no host and port"
    if problem:
        # The URL itself is not shown: it may hold the credentials that it should not.
        raise Terminal(Reason.ENDPOINT_NOT_ALLOWED, f"the endpoint's URL {problem}, wanted https://host[:port]/path")
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80)


def normalised(host: str) -> str:
    """Return a host in the one spelling in which it is compared: lower case, no final dot, no brackets.

    Raises Terminal(ENDPOINT_NOT_ALLOWED) for anything but a name of ASCII labels or a plain address: numbers
    that some clients read as addresses (2130706433, 0x7f.1, 0177.0.0.1), zones, and other alphabets are
    refused.
    """
    text = host.lower().removesuffix(".")
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if (address := literal(text)) is not None:
        return str(address)
    labels = text.split(".")
    is_name = host.isascii() and len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    if not is_name or _NUMERIC.fullmatch(text):
        raise Terminal(
            Reason.ENDPOINT_NOT_ALLOWED,
            "the host is not a plain name or address, wanted one such as api.example.com",
        )
    return text


def literal(text: str) -> Address | None:
    """Return the address that a text is; None for a name, and for an address with a zone."""
    if "%" in text:
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def host_and_port(entry: str) -> tuple[str, int | None]:
    """Read `host`, `host:port`, `address`, `address:port` or `[address]:port`."""
    text = entry.strip().lower()
    if literal(text) is not None:
        return text, None
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit():
        return normalised(host), int(port)
    return normalised(text), None


def is_same(entry: str, name: str, port: int) -> bool:
    """Return whether an entry of a list, with or without a port, is a host at a port."""
    host, wanted_port = host_and_port(entry)
    return host == name and wanted_port in (None, port)


def matches(pattern: str, name: str) -> bool:
    """Return whether a host is what a list names: itself, `*.suffix`, or `*` for all."""
    pattern = pattern.removesuffix(".")
    if pattern == "*":
        return True
    if pattern.startswith("*.") and len(pattern) > 2:
        # A suffix means something for names only: *.0.0.1 must not take in addresses.
        return literal(name) is None and name.endswith(pattern[1:])
    return pattern == name


def forms(address: Address) -> list[Address]:
    """Return an address and the IPv4 addresses that it stands for when a router or a kernel unwraps it."""
    found: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.sixtofour, *(address.teredo or ())]
        if address in NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        found += [each for each in inner if each is not None]
    return found


def never(form: Address) -> str:
    """Return why nobody may reach an address, whatever the settings say; empty where somebody may."""
    if getattr(form, "ipv4_mapped", None) is not None:
        return "has an IPv4 address written as IPv6; wanted it plain"
    if any(form in network for network in _METADATA):
        return "has the address of a cloud's metadata service"
    if form.is_link_local:
        return "has a link-local address"
    if form.is_unspecified or form.is_multicast or form in _THIS_NETWORK:
        return "has an unspecified or multicast address"
    return ""
