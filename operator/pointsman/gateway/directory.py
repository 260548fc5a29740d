"""Which route serves each deployment now? Routes come in as they are wanted, and are adopted once they can be served.

A route is adopted when all its weighted indexes are open; until then the one before it goes on, whatever the new one
lacks, but for what that one lacked as well: nobody gains by waiting for it. So a route back to indexes that are open is
adopted at once, in the call that brings it, and whatever became of the others: neither their model nor their database
nor what the dataset says of them by now is in its way. What is open is kept as long as a route names it or a request
uses it. Everything here happens on one event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pointsman import logs
from pointsman.api import dataset as dataset_api
from pointsman.api import engines, routes
from pointsman.api.conditions import Reason
from pointsman.backends import registry
from pointsman.cluster.resources import DATASET, DEPLOYMENT, All, Changed, Gone, Resource, Seen
from pointsman.embedders import declared
from pointsman.errors import PointsmanError, Terminal
from pointsman.gateway import routing, telemetry
from pointsman.gateway.opening import Adopted, Opening
from pointsman.gateway.serving import Doors, Pairing

log = logs.logger()
Name = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A route that is older than the one that was there."""

    epoch: int
    revision: int
    why: str


class Deployment:
    """One deployment: the route that is wanted, the one that serves, and what was counted."""

    def __init__(self, name: Name, uid: str, doors: Doors, clock: telemetry.Clock) -> None:
        self.name, self.uid = name, uid
        self.ledger = telemetry.Ledger(clock)
        self.adopted: Adopted | None = None
        self.refused: Refused | None = None
        self.in_flight = 0
        """Requests under way."""
        self._doors, self._clock = doors, clock
        self._wanted: routing.Route | None = None
        self._unreadable = self._unknown = ""
        self._unpaired: dict[str, PointsmanError] = {}
        self._backends: dict[str, engines.Backend] = {}
        self._fields: dict[str, frozenset[str]] = {}
        self._openings: dict[Pairing, Opening] = {}
        self._target: dict[str, Opening] = {}

    @property
    def is_settled(self) -> bool:
        """Whether its route is served as far as it can be."""
        if self._wanted is None or self.adopted is not None:
            return True
        return all(entry.index in self._unpaired for entry in self._wanted.entries if entry.weight)

    def see(self, resource: Resource, dataset: dataset_api.Spec | None) -> None:
        """Take in the deployment's resource, and the spec of its dataset as it was last seen."""
        status = (resource.get("status") or {}).get("route")
        try:
            backend = engines.Backend.model_validate(resource["spec"]["backend"])
            self._backends[registry.address(backend)] = backend
            self._unknown = ""
        except (ValidationError, KeyError):
            # By the schema of another release, perhaps. A way back to what is open does not depend on it.
            self._unknown = "spec.backend cannot be read by this release"
        try:
            # Status that was lost comes back; until then the last route is the best there is.
            route = None if status is None else routing.read(routes.RouteStatus.model_validate(status))
        except (ValidationError, PointsmanError) as error:
            self._unreadable = error.message if isinstance(error, PointsmanError) else "the route cannot be read"
            return
        self._unreadable = ""
        if route is not None and self._is_current(route):
            self._wanted = route
        self.pair(dataset)

    def _is_current(self, route: routing.Route) -> bool:
        if self._wanted is None or route.age >= self._wanted.age:
            self.refused = None
            return True
        last = self._wanted
        why = f"older than epoch {last.epoch}, revision {last.revision}"
        found = Refused(route.epoch, route.revision, why)
        if found != self.refused:
            log.warning(logs.Event.ROUTE_REFUSED, deployment="/".join(self.name), epoch=route.epoch, why=why)
        self.refused = found
        return False

    def pair(self, dataset: dataset_api.Spec | None) -> None:
        """Say which model embeds for each index of the wanted route, and open what is not open."""
        if self._wanted is None:
            return
        for version in dataset.versions if dataset is not None else ():
            self._fields[version.name] = frozenset(version.text.metadata_fields)
        before, self._target, self._unpaired = self._target, {}, {}
        for entry in self._wanted.entries:
            index = entry.index
            try:
                pairing = self._pairing(self._wanted, entry, dataset)
            except PointsmanError as error:
                self._unpaired[index] = error
                continue
            opening = self._openings.get(pairing)
            if opening is None or not opening.users:
                opening = self._openings[pairing] = Opening(pairing, self._doors, self._settle)
            opening.users += 1
            self._target[index] = opening
        self._let_go(before)
        self._settle()

    def _pairing(self, route: routing.Route, entry: routing.Entry, dataset: dataset_api.Spec | None) -> Pairing:
        backend = self._backends.get(route.address)
        if backend is None:
            named = ", ".join(self._backends) or "none that this release can read"
            raise Terminal(
                Reason.INDEX_ELSEWHERE, f"the indexes are at {route.address}, spec.backend names {named}; name it again"
            )
        model, endpoint = _reached(entry, route.dataset, dataset)
        return Pairing(
            namespace=self.name[0],
            owner="/".join(self.name),
            index=entry.index,
            version=entry.version,
            space=entry.embedding,
            backend=backend,
            model=model,
            endpoint=endpoint,
        )

    def _settle(self) -> None:
        """Adopt the wanted route if it can be served; the first one also where parts of it cannot."""
        route = self._wanted
        if route is None or {*self._target, *self._unpaired} != {entry.index for entry in route.entries}:
            return
        servings = {entry.index: opening for entry in route.entries if (opening := self._opening(route, entry))}
        weighted = {entry.index: servings.get(entry.index) for entry in route.entries if entry.weight}
        closed = {index for index, opening in weighted.items() if opening is None or not opening.is_open}
        if closed:
            there = [opening for opening in weighted.values() if opening is not None]
            if self.adopted is not None and (closed == {*weighted} or not all(map(self.adopted.lacks, closed))):
                return
            if not there or not all(opening.is_tried for opening in there):
                return
        if self.adopted is not None and self.adopted.route == route and self.adopted.is_of(servings):
            return
        self._adopt(route, servings)

    def _opening(self, route: routing.Route, entry: routing.Entry) -> Opening | None:
        """Return what is to serve an index: what its dataset says by now, or until that is open, what serves it."""
        wanted, adopted = self._target.get(entry.index), self.adopted
        if adopted is None or adopted.route.address != route.address or (wanted is not None and wanted.is_open):
            return wanted
        before, opening = adopted.route.entry(entry.index), adopted.opening(entry.index)
        lasts = before is not None and before.embedding == entry.embedding and opening is not None and opening.is_open
        return opening if lasts else wanted

    def _adopt(self, route: routing.Route, servings: Mapping[str, Opening]) -> None:
        before, at = self.adopted, self._clock()
        if before is not None and before.route.age == route.age:
            at = before.at
        else:
            self.ledger.begin_revision(route.salt)
        missing = {index: error for index, error in self._unpaired.items() if index not in servings}
        self.adopted = Adopted(route, servings, at, dict(self._fields), missing)
        if before is not None:
            before.leave()
        self._sweep()
        weights = {entry.version: entry.weight for entry in route.entries}
        log.info(
            logs.Event.ROUTE_ADOPTED,
            deployment="/".join(self.name),
            epoch=route.epoch,
            revision=route.revision,
            weights=weights,
        )

    def _let_go(self, openings: Mapping[str, Opening]) -> None:
        for opening in openings.values():
            opening.users -= 1
            opening.close_unused()
        self._sweep()

    def _sweep(self) -> None:
        self._openings = {pairing: each for pairing, each in self._openings.items() if each.users}

    def close(self) -> None:
        """Stop routing. What requests under way use is closed after them."""
        adopted, self.adopted, self._wanted = self.adopted, None, None
        target, self._target = self._target, {}
        if adopted is not None:
            adopted.leave()
        self._let_go(target)

    def problem(self, is_weighted: bool = False) -> str:
        """Return what keeps it from serving what is wanted, as clauses; empty where nothing does.

        With `is_weighted` of the indexes that have weight alone: what is wrong with another is in no query's way.
        """
        entries = () if self._wanted is None else self._wanted.entries
        found = [self._unreadable, "" if is_weighted else self._unknown]
        for entry in entries:
            if entry.weight or not is_weighted:
                found.append(self._problem(entry.index))
        return "; ".join(dict.fromkeys(each for each in found if each))

    def _problems(self) -> dict[str, str]:
        """Return what of that is about one index that has weight, by index."""
        entries = () if self._wanted is None else self._wanted.entries
        return {each.index: why for each in entries if each.weight and (why := self._problem(each.index))}

    def _problem(self, index: str) -> str:
        if index in self._unpaired:
            return self._unpaired[index].message
        opening = self._target.get(index)
        return "" if opening is None else opening.problem()

    def _held(self) -> list[str]:
        """Return the indexes that are on no route any more and are being searched still, by what began before."""
        named = set() if self.adopted is None else {entry.index for entry in self.adopted.route.entries}
        wanted = set() if self._wanted is None else {entry.index for entry in self._wanted.entries}
        return sorted({each.index for each in self._openings.values() if each.users} - named - wanted)

    def why_not(self) -> str:
        """Return why nothing serves yet, as a clause."""
        return self.problem() or ("it is being opened" if self._wanted is not None else "it has no route yet")

    def report(self) -> dict[str, Any] | None:
        """Return what is served and was measured; None while no route ever served."""
        if self.adopted is None and self._wanted is None:
            return None
        route = None if self.adopted is None else self.adopted.route
        return {
            "uid": self.uid,
            "epoch": 0 if route is None else route.epoch,
            "revision": 0 if route is None else route.revision,
            "adoptedAt": None if self.adopted is None else telemetry.iso(self.adopted.at),
            "refused": None
            if self.refused is None
            else {"epoch": self.refused.epoch, "revision": self.refused.revision, "why": self.refused.why},
            "problem": self.problem(is_weighted=True),
            "problems": self._problems(),
            "held": self._held(),
            **self.ledger.report("" if route is None else route.shadow),
        }


def _reached(
    entry: routing.Entry, name: str, dataset: dataset_api.Spec | None
) -> tuple[dataset_api.ModelChoice, dataset_api.Endpoint | None]:
    """Return how the model of an entry is reached."""
    if entry.embedding.provider == "wordllama":
        dimensions: Any = entry.embedding.dimensions
        return dataset_api.ModelChoice(wordllama=dataset_api.WordllamaModel(dimensions=dimensions)), None
    if dataset is None:
        raise Terminal(Reason.DATASET_NOT_FOUND, f"dataset {name} is not there to say how {entry.version} is reached")
    model = declared.model_of(dataset, entry.version, entry.embedding)
    return model, declared.endpoint_of(dataset, model)


class Directory:
    """All deployments that this gateway knows."""

    def __init__(self, doors: Doors, clock: telemetry.Clock) -> None:
        self._doors, self._clock = doors, clock
        self._deployments: dict[Name, Deployment] = {}
        self._resources: dict[Name, Resource] = {}
        self._datasets: dict[Name, dataset_api.Spec] = {}
        self._versions: dict[tuple[str, str, str], tuple[str, str]] = {}
        """Of each resource its uid and resourceVersion, as it was seen last."""
        self._unseen: set[tuple[str, str | None]] = set()
        self._was_ready = False

    def expect(self, kind: str, namespace: str | None) -> None:
        """Wait for the first listing of a kind before anything is routed."""
        self._unseen.add((kind, namespace))

    @property
    def is_ready(self) -> bool:
        """Whether everything was seen, and each route there was then is served as far as it can be."""
        if not self._was_ready:
            self._was_ready = not self._unseen and all(each.is_settled for each in self._deployments.values())
        return self._was_ready

    @property
    def deployments(self) -> Mapping[Name, Deployment]:
        """All of them."""
        return self._deployments

    def find(self, namespace: str, name: str) -> Deployment | None:
        """Return a deployment, or None."""
        return self._deployments.get((namespace, name))

    def see(self, kind: str, namespace: str | None, seen: Seen) -> None:
        """Take in what a watch saw."""
        match seen:
            case All(resources):
                there = {_name(resource) for resource in resources}
                changed = [_name(resource) for resource in resources if self._take(kind, resource)]
                for name in [each for each in self._resources if namespace in (None, each[0])]:
                    if kind == DEPLOYMENT and name not in there:
                        self._remove(name)
                was_blind = bool(self._unseen)
                self._unseen.discard((kind, namespace))
                # Of what comes again every half a minute, most is as it was.
                for name in changed if not was_blind else ():
                    self._look_again(kind, name)
                if was_blind and not self._unseen:
                    for name in list(self._resources):
                        self._route(name)
            case Changed(resource):
                self._take(kind, resource)
                self._look_again(kind, _name(resource))
            case Gone(resource):
                # Of a dataset the last spec is kept: what was built from it serves on.
                if kind == DEPLOYMENT:
                    self._remove(_name(resource))

    def _take(self, kind: str, resource: Resource) -> bool:
        """Remember a resource as it is now; return whether it is another than before."""
        meta, place = resource["metadata"], (kind, *_name(resource))
        version = (meta.get("uid", ""), meta.get("resourceVersion", ""))
        if version[1] and self._versions.get(place) == version:
            return False
        self._versions[place] = version
        if kind == DEPLOYMENT:
            self._resources[_name(resource)] = resource
        elif kind == DATASET:
            try:
                self._datasets[_name(resource)] = dataset_api.Spec.model_validate(resource["spec"])
            except ValidationError:
                log.warning(logs.Event.ROUTE_REFUSED, dataset="/".join(_name(resource)), why="its spec cannot be read")
        return True

    def _look_again(self, kind: str, name: Name) -> None:
        if self._unseen:
            return
        if kind == DEPLOYMENT:
            self._route(name)
            return
        for each, resource in self._resources.items():
            if each[0] == name[0] and resource["spec"].get("datasetRef", {}).get("name") == name[1]:
                self._route(each)

    def _route(self, name: Name) -> None:
        try:
            self._follow(name)
        except Exception as error:
            # What nobody foresaw in one resource must not keep the others from being routed.
            log.error(logs.Event.ROUTE_REFUSED, deployment="/".join(name), exc_info=error)

    def _follow(self, name: Name) -> None:
        resource = self._resources[name]
        meta = resource["metadata"]
        known = self._deployments.get(name)
        if known is not None and known.uid != meta["uid"]:
            self._forget(name)
            known = None
        if meta.get("deletionTimestamp"):
            # Its indexes are removed next.
            self._forget(name)
            return
        if known is None:
            known = self._deployments[name] = Deployment(name, meta["uid"], self._doors, self._clock)
        dataset = resource["spec"].get("datasetRef", {}).get("name", "")
        known.see(resource, self._datasets.get((name[0], dataset)))

    def _remove(self, name: Name) -> None:
        self._resources.pop(name, None)
        self._versions.pop((DEPLOYMENT, *name), None)
        self._forget(name)

    def _forget(self, name: Name) -> None:
        known = self._deployments.pop(name, None)
        if known is not None:
            known.close()
            log.info(logs.Event.ROUTE_DROPPED, deployment="/".join(name))

    def close(self) -> None:
        """Close everything."""
        for name in list(self._deployments):
            self._forget(name)


def _name(resource: Resource) -> Name:
    return resource["metadata"]["namespace"], resource["metadata"]["name"]
