"""How an object store is opened: with the tenant's own credentials, at addresses that were judged, and at no others.

Names are judged anew for every connection, since object stores move between addresses all the time, and the connection
goes to the very address that was judged. Whatever sends the client elsewhere gets it no connection: another answer of
the DNS, a redirect, a proxy of the environment.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Mapping
from typing import Any

from aiohttp import abc

from pointsman import hosts
from pointsman.access import Access
from pointsman.api.conditions import Reason
from pointsman.errors import PointsmanError, Terminal

_AMAZON = (".amazonaws.com", ".amazonaws.com.cn")
_CONNECT_SECONDS = 10
_READ_SECONDS = 60


def open_store(uri: str, credentials: Mapping[str, str], access: Access) -> Any:
    """Return the file system of an object store; nothing is sent to it yet.

    Raises Terminal(CREDENTIALS_REQUIRED, FILE_NOT_ALLOWED, ENDPOINT_NOT_ALLOWED), or Retryable(HOST_NOT_FOUND).
    """
    access.check_object(uri)
    endpoint = credentials.get("endpoint")
    has_keys = "accessKeyID" in credentials and "secretAccessKey" in credentials
    if not has_keys:
        _check_ambient(uri, endpoint, access)
    bucket = uri.removeprefix("s3://").partition("/")[0]
    _, host, port = hosts.split_url(endpoint or f"https://{bucket}.s3.amazonaws.com")
    judged = Judged(host, port, access, is_amazon=endpoint is None)
    try:
        import s3fs
    except ImportError:
        raise Terminal(
            Reason.INVALID_SPEC, f"{uri} needs the s3 extra, which this image lacks; install pointsman[s3]"
        ) from None
    return s3fs.S3FileSystem(
        key=credentials.get("accessKeyID"),
        secret=credentials.get("secretAccessKey"),
        token=credentials.get("sessionToken"),
        endpoint_url=endpoint,
        client_kwargs={"region_name": credentials["region"]} if "region" in credentials else {},
        config_kwargs={
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            "retries": {"max_attempts": 3},
            # Virtual hosts need DNS that in-cluster object stores lack.
            "s3": {"addressing_style": "path" if endpoint else "auto"},
            "connector_args": {"resolver": judged, "socket_factory": judged.open_socket},
            # Empty, not missing: then neither proxies nor endpoints of the operator's environment are used.
            "proxies": {},
            "ignore_configured_endpoint_urls": True,
        },
        use_listings_cache=False,
        skip_instance_cache=True,
    )


class Judged(abc.AbstractResolver):
    """Resolves the names of one store to judged addresses, and makes sockets to these alone.

    The client asks for sockets also where it resolves nothing, such as for a redirect to an address: so it is the
    socket that is refused in the end.
    """

    def __init__(self, host: str, port: int, access: Access, is_amazon: bool = False) -> None:
        self._host, self._access, self._is_amazon = hosts.normalised(host), access, is_amazon
        self._judged = {(address, port) for address in access.addresses(host, port)}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[abc.ResolveResult]:
        """Return the judged addresses of a name of the store; raises OSError for any other name."""
        if host != self._host and not (self._is_amazon and host.endswith(_AMAZON)):
            raise OSError(errno.EHOSTUNREACH, f"{host} is not a host of this store")
        try:
            found = await asyncio.to_thread(self._access.addresses, host, port)
        except PointsmanError as error:
            raise OSError(errno.EHOSTUNREACH, error.message) from error
        self._judged |= {(address, port) for address in found}
        return [
            abc.ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    def open_socket(self, wanted: Any) -> socket.socket:
        """Return a socket for one of `getaddrinfo`'s entries; raises OSError for an address that was not judged."""
        family, kind, protocol, _, (host, port, *_) = wanted
        if (str(ipaddress.ip_address(host)), port) not in self._judged:
            raise OSError(errno.EHOSTUNREACH, f"{host} is not an address of this store")
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """Do nothing: there is nothing to give back."""


def _check_ambient(uri: str, endpoint: str | None, access: Access) -> None:
    if not access.allow_ambient_credentials:
        raise Terminal(
            Reason.CREDENTIALS_REQUIRED,
            f"{uri} is only read with credentials of its own; "
            "set credentialsRef to a Secret with accessKeyID and secretAccessKey",
        )
    if endpoint is not None:
        # Whoever names the endpoint would be sent what the operator's own identity signs, and its session's token.
        raise Terminal(
            Reason.CREDENTIALS_REQUIRED,
            f"the Secret of {uri} names an endpoint without accessKeyID and secretAccessKey; "
            "the operator's own identity goes to Amazon alone: add both keys",
        )
