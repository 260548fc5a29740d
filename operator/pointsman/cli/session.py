"""What a command works with: the cluster, the store and the clock, built once and passed down."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pointsman.api.conditions import Reason
from pointsman.cluster.resources import Cluster
from pointsman.errors import Terminal

if TYPE_CHECKING:
    from rich.console import Console

    from pointsman.store.dataset import DatasetStore
    from pointsman.store.root import Store


@dataclass(frozen=True, slots=True)
class World:
    """How the outside is reached; tests bring their own."""

    connect: Callable[[str | None, str | None], Cluster]
    open_store: Callable[[str, Mapping[str, str]], Store]
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]


def real() -> World:
    """Return the world as it is. What a command does not use is not imported."""
    return World(
        connect=_connect,
        open_store=_open_store,
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        sleep=time.sleep,
    )


@dataclass(slots=True)
class Session:
    """One command's view of the world, after the global options were read."""

    world: World
    kubeconfig: str | None = None
    context: str | None = None
    asked_namespace: str | None = None
    _cluster: Cluster | None = field(default=None, init=False)

    @property
    def cluster(self) -> Cluster:
        """The cluster, connected at first use."""
        if self._cluster is None:
            self._cluster = self.world.connect(self.kubeconfig, self.context)
        return self._cluster

    @property
    def namespace(self) -> str:
        """The namespace that was asked for, or else that of the kubeconfig's context, or else `default`."""
        return self.asked_namespace or _namespace_of(self.kubeconfig, self.context) or "default"

    def dataset(self, name: str, store: str | None) -> DatasetStore:
        """Open what the store keeps of a dataset; `store` wins over POINTSMAN_STORE."""
        return self.store(store).dataset(self.namespace, name)

    def store(self, store: str | None) -> Store:
        """Open the operator's store; `store` wins over POINTSMAN_STORE."""
        from pointsman import settings
        from pointsman.cli import reach

        loaded = settings.load(store=store)
        uri = loaded.store_uri
        # Opening would make the folder, and an empty store answers a mistyped path as if nothing were there.
        if ("://" not in uri or uri.startswith("file://")) and not Path(uri.removeprefix("file://")).is_dir():
            raise Terminal(Reason.INVALID_SPEC, f"there is no store at {uri}; set --store or POINTSMAN_STORE")
        return self.world.open_store(uri, reach.store_options(loaded))


def console(*, to_stderr: bool = False) -> Console:
    """Return where to print. Lines are not folded where nobody watches: the reader is a program or a log."""
    from rich.console import Console

    stream = sys.stderr if to_stderr else sys.stdout
    return Console(file=stream, highlight=False, markup=False, width=None if stream.isatty() else 240)


def _connect(kubeconfig: str | None, context: str | None) -> Cluster:
    from pointsman.cluster import kube

    return kube.connect(kubeconfig, context)


def _open_store(uri: str, options: Mapping[str, str]) -> Store:
    from pointsman.store.root import Store

    return Store(uri, options)


def _namespace_of(kubeconfig: str | None, context: str | None) -> str | None:
    """Return the namespace of a kubeconfig's context, as kubectl finds it: the first file that says so."""
    import yaml

    stated = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    documents = []
    for path in (Path(entry) for entry in stated.split(os.pathsep) if entry):
        try:
            loaded = yaml.safe_load(path.read_text())
        except FileNotFoundError:
            continue
        except (OSError, yaml.YAMLError, UnicodeDecodeError):
            raise Terminal(Reason.INVALID_SPEC, f"{path} cannot be read as a kubeconfig") from None
        documents.append(loaded if isinstance(loaded, dict) else {})
    current = context or next((d["current-context"] for d in documents if d.get("current-context")), None)
    for document in documents:
        for entry in document.get("contexts") or []:
            if isinstance(entry, dict) and entry.get("name") == current:
                found = (entry.get("context") or {}).get("namespace")
                return found if isinstance(found, str) else None
    return None
