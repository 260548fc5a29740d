"""What may the resources of tenants reach? The settings' answer, for every process that follows what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pointsman import settings
from pointsman.access import Access


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
