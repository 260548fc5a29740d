"""What may be reached: by the resources of tenants, and of the store? The settings' answers, in the words of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pointsman import settings
from pointsman.access import Access
from pointsman.store import options


def access_of(
    chosen: settings.Settings, api_servers: Sequence[tuple[str, int]], environment: Mapping[str, str]
) -> Access:
    """Return what tenants' resources may reach: never the Kubernetes API, by whichever of its addresses."""
    denied = list(api_servers)
    if host := environment.get("KUBERNETES_SERVICE_HOST"):
        denied.append((host, int(environment.get("KUBERNETES_SERVICE_PORT", "443"))))
    return Access(
        file_roots=chosen.file_roots,
        allowed_hosts=chosen.allowed_hosts,
        allow_loopback=chosen.allow_loopback,
        allow_ambient_credentials=chosen.allow_ambient_credentials,
        allow_memory_backend=chosen.allow_memory_backend,
        store=chosen.store_uri,
        # Without the brackets the port would read as a part of an IPv6 address.
        denied_hosts=tuple(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in denied),
    )


def store_options(chosen: settings.Settings) -> Mapping[str, str]:
    """Return how the store is opened, with the file whose options are read again when it changes."""
    file = chosen.store_options_file
    return chosen.store_options if file is None else {**chosen.store_options, options.FILE: str(file)}
