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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pointsman import hosts
from pointsman.api.conditions import Reason
from pointsman.errors import PointsmanError, Retryable, Terminal

SECRET_ANNOTATION: Final = "pointsman.dev/allowed-hosts"
"""On a Secret: the hosts that it may be sent to, separated by commas; `*.example.com` is all below it."""

_GLOB: Final = re.compile(r"[*?\[\]{}]")


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
    resolve: hosts.Resolve = field(default=hosts.resolve, repr=False, compare=False)
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
        self.check_host(*hosts.split_url(url)[1:])

    def check_store(self, options: Mapping[str, str]) -> None:
        """Check that an object store of a tenant's may be opened with these options.

        What opens stores resolves names by itself and follows redirects, which nothing can forbid it: so its host has
        to be listed, public or not, unless it is Amazon's. Raises as `check_url` does.
        """
        if not hosts.is_label(options.get("aws_region", "none").lower()):
            # It becomes a part of the name of Amazon's host.
            raise _refused("the store's region", "is no plain name, wanted one such as eu-central-1")
        if "aws_endpoint" not in options:
            return
        _, host, port = hosts.split_url(options["aws_endpoint"])
        if not self._is_listed(hosts.normalised(host)):
            raise _refused(hosts.normalised(host), "is not among the hosts for stores; have it added to allowedHosts")
        self.check_host(host, port)

    def check_host(self, host: str, port: int) -> str:
        """Return the address to connect to for a host that may be reached: the first of `addresses`."""
        return self.addresses(host, port)[0]

    def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """Return all addresses of a host that may be reached, IPv4 first; connect to these, not to the name.

        One forbidden address among several forbids the host: which one a client would take is chance. Raises
        Terminal(ENDPOINT_NOT_ALLOWED), or Retryable(HOST_NOT_FOUND) where the name does not resolve now.
        """
        name = hosts.normalised(host)
        self._check_name(name, port)
        literal = hosts.literal(name)
        found = [literal] if literal is not None else self._resolved(name, port)
        denied = self._denied_addresses(port)
        for address in found:
            self._check_address(name, address, denied)
        return tuple(str(address) for address in sorted(found, key=lambda address: address.version))

    def check_secret(self, name: str, annotations: Mapping[str, str], host: str) -> None:
        """Check that a Secret may be sent to a host: its own annotation must list it.

        Raises Terminal(SECRET_NOT_ALLOWED).
        """
        wanted = hosts.normalised(host)
        listed = [entry.strip().lower() for entry in annotations.get(SECRET_ANNOTATION, "").split(",")]
        # A bare * is no list of hosts: who may annotate the Secret must say where it goes.
        if not any(hosts.matches(entry, wanted) for entry in listed if entry.removesuffix(".") != "*"):
            raise Terminal(
                Reason.SECRET_NOT_ALLOWED,
                f"Secret {name} does not list {wanted}; add it to its annotation {SECRET_ANNOTATION}",
            )

    def _check_name(self, name: str, port: int) -> None:
        if name in hosts.API_SERVER or any(hosts.is_same(entry, name, port) for entry in self.denied_hosts):
            raise _refused(name, "is denied to resources, such as the Kubernetes API")
        if self.allowed_hosts and not self._is_listed(name):
            raise _refused(name, "is not among the allowed hosts; have allowedHosts extended")

    def _is_listed(self, name: str) -> bool:
        return any(hosts.matches(entry.strip().lower(), name) for entry in self.allowed_hosts)

    def _resolved(self, name: str, port: int) -> list[hosts.Address]:
        try:
            # Without a zone: no address that has one is allowed, and the check below must see the address
            # itself.
            found = [ipaddress.ip_address(text.partition("%")[0]) for text in self.resolve(name, port)]
        except (OSError, UnicodeError, ValueError):
            found = []
        if not found:
            raise Retryable(Reason.HOST_NOT_FOUND, f"{name} does not resolve; check its spelling and the cluster's DNS")
        return found

    def _denied_addresses(self, port: int) -> set[hosts.Address]:
        addresses: set[hosts.Address] = set()
        for entry in self.denied_hosts:
            host, wanted_port = hosts.host_and_port(entry)
            if wanted_port not in (None, port):
                continue
            if (literal := hosts.literal(host)) is not None:
                addresses.add(literal)
                continue
            with contextlib.suppress(PointsmanError):
                addresses.update(self._resolved(host, port))
        return {form for address in addresses for form in hosts.forms(address)}

    def _check_address(self, name: str, address: hosts.Address, denied: set[hosts.Address]) -> None:
        for form in hosts.forms(address):
            # All loopback addresses lead to a server that listens on every interface.
            if form in denied or (form.is_loopback and any(each.is_loopback for each in denied)):
                raise _refused(name, "has an address that is denied to resources, such as the Kubernetes API's")
            if why := hosts.never(form):
                raise _refused(name, why)
            if form.is_loopback:
                if not self.allow_loopback:
                    raise _refused(
                        name, "is this machine itself; wanted another host, or allowLoopback in the settings"
                    )
            elif form.is_reserved and form not in hosts.NAT64:
                raise _refused(name, "has a reserved address")
            elif not form.is_global and not self._is_listed(name) and form not in hosts.NAT64:
                raise _refused(name, "has a private address; have the host added to allowedHosts")


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
