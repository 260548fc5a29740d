"""The edge: kopf watches, and whatever it sees only wakes the loop.

No handler here looks at what has changed, decides or waits. kopf writes nothing: there is no handler of the
kinds that make it leave annotations or finalizers.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import kopf

from pointsman.api import base
from pointsman.cluster.mirror import Mirror
from pointsman.cluster.resources import APPROVAL, DATASET, DEPLOYMENT, PLURALS, QUERY_SET, Identity, names
from pointsman.plan.tasks import Key

Wake = Callable[[Key], None]
BEAT_EVERY = 1.0
"""Seconds between two signs of life of the event loop that watches."""
PAGE = 100
"""How many resources are listed by one call: of a large cluster, all at once would be a lot of memory."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an API server is waited for that is silent, or refuses."""

    silence: float = 70.0
    """Seconds without even a bookmark, of which there is one a minute, after which a watch is begun anew where it was:
    what is between us and the server has died."""
    first: float = 1.0
    longest: float = 30.0
    """Seconds before what was refused is asked for again: at first, and at most."""

    def __iter__(self) -> Iterator[float]:
        """Yield the seconds before each further attempt, without an end: not watching would be worse.

        Half of them is left to chance: others are refused at the same moment, and not all are to be back at once.
        """
        for attempt in itertools.count():
            wait = min(self.longest, self.first * 2.0 ** min(attempt, 16))
            yield wait * (0.5 + 0.5 * random.random())


def configure(settings: kopf.OperatorSettings, patience: Patience) -> None:
    """Have kopf write nothing, and watch for as long as there is an operator."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.chunk_size = PAGE
    settings.watching.inactivity_timeout = patience.silence
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 60
    # Left to itself, kopf gives a watch up, and itself with it, after 54 seconds of 5xx.
    settings.networking.error_backoffs = patience
    settings.persistence.finalizer = f"{base.GROUP}/kopf-unused"
    # Each resource that was seen keeps a task and its content for so long.
    settings.queueing.idle_timeout = 0.01


def registry(mirror: Mirror, wake: Wake, look: Wake, patience: Patience | None = None) -> kopf.OperatorRegistry:
    """Return the handlers: each passes on what it saw and hands over the keys of whatever that concerns.

    `wake` takes the keys for which something has happened, `look` those of what was there before.
    """
    handlers = kopf.OperatorRegistry()

    @kopf.on.startup(registry=handlers)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings, patience or Patience())

    @kopf.on.event(base.GROUP, base.API_VERSION, PLURALS[DATASET], registry=handlers)
    async def dataset(event: kopf.RawEvent, **_: Any) -> None:
        told(DATASET, event, mirror, wake, look)

    @kopf.on.event(base.GROUP, base.API_VERSION, PLURALS[DEPLOYMENT], registry=handlers)
    async def deployment(event: kopf.RawEvent, **_: Any) -> None:
        told(DEPLOYMENT, event, mirror, wake, look)

    @kopf.on.event(base.GROUP, base.API_VERSION, PLURALS[QUERY_SET], registry=handlers)
    async def query_set(event: kopf.RawEvent, **_: Any) -> None:
        told(QUERY_SET, event, mirror, wake, look)

    @kopf.on.event(base.GROUP, base.API_VERSION, PLURALS[APPROVAL], registry=handlers)
    async def approval(event: kopf.RawEvent, **_: Any) -> None:
        told(APPROVAL, event, mirror, wake, look)

    return handlers


def told(kind: str, event: kopf.RawEvent, mirror: Mirror, wake: Wake, look: Wake) -> None:
    """Pass on what an event shows, and hand over the keys of whatever it concerns."""
    resource: dict[str, Any] = {"kind": kind, **event["object"]}
    meta, spec = resource["metadata"], resource.get("spec") or {}
    key = Key(kind, meta.get("namespace") or "", meta.get("name") or "")
    if event["type"] == "DELETED":
        mirror.lost(key)
    else:
        mirror.saw(resource)
    if event["type"] is None and not mirror.is_whole:
        # Once everything was heard of everything is looked at, and then a glance will do for most.
        return
    hand_over = look if event["type"] is None else wake
    hand_over(key)
    # What a deployment wants decides what its dataset keeps and embeds first, and a decision is on what it names.
    named = names(kind, key.namespace, spec)
    if named is not None:
        hand_over(named)
    # Whether a decision counts depends on what is planned.
    for decision in mirror.keys_naming(APPROVAL, key) if kind == DEPLOYMENT else ():
        hand_over(decision)


def run(
    handlers: kopf.OperatorRegistry,
    namespaces: Sequence[str],
    identity: Callable[[], Identity],
    beat: Callable[[], None],
) -> None:
    """Watch, as whoever `identity` says, until SIGTERM or SIGINT; call `beat` for as long as the event loop goes on.

    Raises when a watch has died, as by an error in its midst that is no 410: the process ends and starts again.
    """
    asyncio.run(watch(handlers, namespaces, identity, beat))


async def watch(
    handlers: kopf.OperatorRegistry,
    namespaces: Sequence[str],
    identity: Callable[[], Identity],
    beat: Callable[[], None],
) -> None:
    """Watch in the event loop of whoever calls; the same otherwise."""

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        # kopf's own ways look for an identity by themselves, and in a pod they would pass over a chosen kubeconfig.
        # A token may have to be fetched by another program, which the event loop must not wait for.
        return connection(await asyncio.to_thread(identity))

    task = asyncio.create_task(beating(beat))
    try:
        # It listens to the signals itself; beside that, a flag to stop by would be a thread that outwaits the end.
        await kopf.operator(
            registry=handlers,
            standalone=True,
            clusterwide=not namespaces,
            namespaces=list(namespaces),
        )
    finally:
        task.cancel()


async def beating(beat: Callable[[], None]) -> None:
    """Call `beat` from time to time, for as long as the event loop goes on."""
    while True:
        beat()
        await asyncio.sleep(BEAT_EVERY)


def connection(identity: Identity) -> kopf.ConnectionInfo:
    """Return an identity as kopf knows it."""
    scheme, _, token = (identity.authorization or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=identity.server,
        ca_path=identity.ca_path,
        insecure=not identity.is_verified,
        scheme=scheme or None,
        token=token or None,
        certificate_path=identity.certificate_path,
        private_key_path=identity.key_path,
        proxy_url=identity.proxy_url,
    )
