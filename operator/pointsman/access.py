"""What may a tenant's resource make the operator reach: which files, which hosts, which Secret for whom?

Resources are written by tenants, and the operator acts with rights that tenants lack: it reads its own disk,
its own network and Secrets. Every path and host that comes from a resource passes here first. Names are
judged by what they resolve to, never by how they are spelt. What is opened afterwards must be what was
returned: the resolved path, the resolved address.
"""

from __future__ import annotations

import contextlib
import ipaddress
import posixpath
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pointsman.api.conditions import Reason
from pointsman.errors import PointsmanError, Retryable, Terminal

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]

SECRET_ANNOTATION: Final = "pointsman.dev/allowed-hosts"
"""On a Secret: the hosts that it may be sent to, separated by commas; `*.example.com` is all below it."""

_GLOB: Final = re.compile(r"[*?\[\]{}]")
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# What inet_aton reads as an address and a person does not: 2130706433, 0177.1, 0x7f.0.0.1.
_NUMERIC: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*")

_API_SERVER: Final = frozenset(
    {
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    }
)

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

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host as the system resolves it; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Access:
    """What the operator's settings allow to the resources of tenants. Nothing by default but public hosts."""

    file_roots: tuple[Path, ...] = ()
    """The folders below which `file://` may read."""
    allowed_hosts: tuple[str, ...] = ()
    """The hosts that may be reached, `*.suffix` for all below a name; empty: any host at public addresses."""
    allow_loopback: bool = False
    """Whether this machine's own servers may be reached, as in the demo."""
    allow_ambient_credentials: bool = False
    """Whether sources may be opened with the operator's own identity."""
    allow_memory_backend: bool = False
    """Whether indexes may be kept in the operator's own memory."""
    store: str = ""
    """Where the operator's own store is: a folder or `s3://bucket/prefix`. Sources are never read from it."""
    denied_hosts: tuple[str, ...] = ()
    """Hosts that are never reached, above all the API server: `host`, `address`, or either with `:port`."""
    resolve: Resolve = field(default=resolve, repr=False, compare=False)
    """How names become addresses."""

    def check_file(self, uri: str) -> Path:
        """Return the path, or pattern of paths, that a `file://` URI names, its folder resolved.

        Of a pattern only the folder before the first wildcard can be judged here: pass each match to
        `check_path`. Raises Terminal(FILE_NOT_ALLOWED).
        """
        found = re.fullmatch(r"file://(?:localhost)?(/[^\x00-\x1f\x7f]+)", uri)
        if found is None:
            raise Terminal(
                Reason.FILE_NOT_ALLOWED,
                "the file's URI is malformed, wanted file:///folder/name without a host",
            )
        parts = [part for part in found[1].split("/") if part not in ("", ".")]
        wild = next((i for i, part in enumerate(parts) if _GLOB.search(part)), None)
        if wild is None:
            return self.check_path(Path("/", *parts))
        if ".." in parts[wild:]:
            raise Terminal(
                Reason.FILE_NOT_ALLOWED,
                f"{uri} has .. after a wildcard, wanted a pattern that only goes down",
            )
        return self._inside(Path("/", *parts[:wild])).joinpath(*parts[wild:])

    def check_path(self, path: Path) -> Path:
        """Return a path with links and `..` resolved; open what is returned, not what was passed.

        Raises Terminal(FILE_NOT_ALLOWED) where it leads out of the allowed folders, or to a pipe or device,
        which would block its reader for ever. A missing file is no error here.
        """
        resolved = self._inside(path)
        try:
            is_usable = resolved.is_file() or not resolved.exists()
        except OSError:
            is_usable = False
        if not is_usable:
            raise Terminal(
                Reason.FILE_NOT_ALLOWED, f"{path} is not a regular file, wanted a file or a pattern of files"
            )
        return resolved

    def check_object(self, uri: str) -> None:
        """Check that an `s3://` URI does not lead into the operator's own store; raises Terminal(FILE_NOT_ALLOWED).

        Buckets are told apart by their names alone, since one endpoint may have many: a bucket of the same name
        elsewhere is refused too.
        """
        if self.store.startswith("s3://") and _is_below(_key(uri), _key(self.store)):
            raise _own_store(uri)

    def _inside(self, path: Path) -> Path:
        try:
            resolved = path.resolve()
            allowed = any(resolved.is_relative_to(root.resolve()) for root in self.file_roots)
            own = _folder(self.store)
            is_own = own is not None and resolved.is_relative_to(own.resolve())
        except (OSError, RuntimeError, ValueError):
            # A loop of links, a name that is too long, a NUL: nothing that may be read.
            allowed = is_own = False
        if is_own:
            raise _own_store(str(path))
        if not allowed:
            raise Terminal(
                Reason.FILE_NOT_ALLOWED,
                f"{path} is outside the folders that may be read; move it there or have fileRoots extended",
            )
        return resolved

    def check_memory(self) -> None:
        """Check that an index may be kept in the operator's own memory; raises Terminal(INVALID_SPEC)."""
        if not self.allow_memory_backend:
            raise Terminal(
                Reason.INVALID_SPEC,
                "backend.memory is for tests and lost with the operator; name a database, "
                "or have allowMemoryBackend set",
            )

    def check_url(self, url: str) -> None:
        """Check that a URL is http or https, carries no credentials, and that its host may be reached.

        Raises Terminal(ENDPOINT_NOT_ALLOWED) or Retryable(HOST_NOT_FOUND).
        """
        self.check_host(*split_url(url)[1:])

    def check_store(self, options: Mapping[str, str]) -> None:
        """Check that an object store of a tenant's may be opened with these options.

        What opens stores resolves names by itself and follows redirects, which nothing can forbid it: so its host has
        to be listed, public or not, unless it is Amazon's. Raises as `check_url` does.
        """
        if not _LABEL.fullmatch(options.get("aws_region", "none").lower()):
            # It becomes a part of the name of Amazon's host.
            raise _refused("the store's region", "is no plain name, wanted one such as eu-central-1")
        if "aws_endpoint" not in options:
            return
        _, host, port = split_url(options["aws_endpoint"])
        if not self._is_listed(normalised(host)):
            raise _refused(normalised(host), "is not among the hosts for stores; have it added to allowedHosts")
        self.check_host(host, port)

    def check_host(self, host: str, port: int) -> str:
        """Return the address to connect to for a host that may be reached: the first of `addresses`."""
        return self.addresses(host, port)[0]

    def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """Return all addresses of a host that may be reached, IPv4 first; connect to these, not to the name.

        One forbidden address among several forbids the host: which one a client would take is chance. Raises
        Terminal(ENDPOINT_NOT_ALLOWED), or Retryable(HOST_NOT_FOUND) where the name does not resolve now.
        """
        name = normalised(host)
        self._check_name(name, port)
        literal = _literal(name)
        found = [literal] if literal is not None else self._resolved(name, port)
        denied = self._denied_addresses(port)
        for address in found:
            self._check_address(name, address, denied)
        return tuple(str(address) for address in sorted(found, key=lambda address: address.version))

    def check_secret(self, name: str, annotations: Mapping[str, str], host: str) -> None:
        """Check that a Secret may be sent to a host: its own annotation must list it.

        Raises Terminal(SECRET_NOT_ALLOWED).
        """
        wanted = normalised(host)
        listed = [entry.strip().lower() for entry in annotations.get(SECRET_ANNOTATION, "").split(",")]
        # A bare * is no list of hosts: who may annotate the Secret must say where it goes.
        if not any(_matches(entry, wanted) for entry in listed if entry.removesuffix(".") != "*"):
            raise Terminal(
                Reason.SECRET_NOT_ALLOWED,
                f"Secret {name} does not list {wanted}; add it to its annotation {SECRET_ANNOTATION}",
            )

    def _check_name(self, name: str, port: int) -> None:
        if name in _API_SERVER or any(_same(entry, name, port) for entry in self.denied_hosts):
            raise _refused(name, "is denied to resources, such as the Kubernetes API")
        if self.allowed_hosts and not self._is_listed(name):
            raise _refused(name, "is not among the allowed hosts; have allowedHosts extended")

    def _is_listed(self, name: str) -> bool:
        return any(_matches(entry.strip().lower(), name) for entry in self.allowed_hosts)

    def _resolved(self, name: str, port: int) -> list[Address]:
        try:
            # Without a zone: no address that has one is allowed, and the check below must see the address
            # itself.
            found = [ipaddress.ip_address(text.partition("%")[0]) for text in self.resolve(name, port)]
        except (OSError, UnicodeError, ValueError):
            found = []
        if not found:
            raise Retryable(Reason.HOST_NOT_FOUND, f"{name} does not resolve; check its spelling and the cluster's DNS")
        return found

    def _denied_addresses(self, port: int) -> set[Address]:
        addresses: set[Address] = set()
        for entry in self.denied_hosts:
            host, wanted_port = _entry(entry)
            if wanted_port not in (None, port):
                continue
            if (literal := _literal(host)) is not None:
                addresses.add(literal)
                continue
            with contextlib.suppress(PointsmanError):
                addresses.update(self._resolved(host, port))
        return {form for address in addresses for form in _forms(address)}

    def _check_address(self, name: str, address: Address, denied: set[Address]) -> None:
        for form in _forms(address):
            # All loopback addresses lead to a server that listens on every interface.
            if form in denied or (form.is_loopback and any(each.is_loopback for each in denied)):
                raise _refused(name, "has an address that is denied to resources, such as the Kubernetes API's")
            if getattr(form, "ipv4_mapped", None) is not None:
                raise _refused(name, "has an IPv4 address written as IPv6; wanted it plain")
            if any(form in network for network in _METADATA):
                raise _refused(name, "has the address of a cloud's metadata service")
            if form.is_link_local:
                raise _refused(name, "has a link-local address")
            if form.is_unspecified or form.is_multicast or form in _THIS_NETWORK:
                raise _refused(name, "has an unspecified or multicast address")
            if form.is_loopback:
                if not self.allow_loopback:
                    raise _refused(
                        name, "is this machine itself; wanted another host, or allowLoopback in the settings"
                    )
            elif form.is_reserved and form not in _NAT64:
                raise _refused(name, "has a reserved address")
            elif not form.is_global and not self._is_listed(name) and form not in _NAT64:
                raise _refused(name, "has a private address; have the host added to allowedHosts")


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
    literal = _literal(text)
    if literal is not None:
        return str(literal)
    labels = text.split(".")
    is_name = host.isascii() and len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    if not is_name or _NUMERIC.fullmatch(text):
        raise Terminal(
            Reason.ENDPOINT_NOT_ALLOWED,
            "the host is not a plain name or address, wanted one such as api.example.com",
        )
    return text


def _refused(name: str, why: str) -> Terminal:
    return Terminal(Reason.ENDPOINT_NOT_ALLOWED, f"{name} {why}")


def _own_store(what: str) -> Terminal:
    return Terminal(
        Reason.FILE_NOT_ALLOWED, f"{what} lies in the operator's own store, which no source may read; move it elsewhere"
    )


def _folder(store: str) -> Path | None:
    """Return the folder of a local store; None where there is none."""
    if not store or store.startswith("s3://"):
        return None
    return Path(unquote(urlsplit(store).path) if store.startswith("file://") else store)


def _key(uri: str) -> str:
    """Return bucket and key of an `s3://` URI in one spelling: a proxy on the way may take `..` and `//` out."""
    return posixpath.normpath(unquote(uri.removeprefix("s3://")))


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _literal(text: str) -> Address | None:
    if "%" in text:
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _entry(entry: str) -> tuple[str, int | None]:
    """Read `host`, `host:port`, `address`, `address:port` or `[address]:port`."""
    text = entry.strip().lower()
    if _literal(text) is not None:
        return text, None
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit():
        return normalised(host), int(port)
    return normalised(text), None


def _same(entry: str, name: str, port: int) -> bool:
    host, wanted_port = _entry(entry)
    return host == name and wanted_port in (None, port)


def _matches(pattern: str, name: str) -> bool:
    pattern = pattern.removesuffix(".")
    if pattern == "*":
        return True
    if pattern.startswith("*.") and len(pattern) > 2:
        # A suffix means something for names only: *.0.0.1 must not take in addresses.
        return _literal(name) is None and name.endswith(pattern[1:])
    return pattern == name


def _forms(address: Address) -> list[Address]:
    """Return an address and the IPv4 addresses that it stands for when a router or a kernel unwraps it."""
    forms: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        forms += [each for each in inner if each is not None]
    return forms
