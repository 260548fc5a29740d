"""Who applies a resource from Git, and what becomes of an edit of the live one.

Argo CD is known by its annotations and labels (`argocd.argoproj.io/…`), Flux by its labels
(`kustomize.toolkit.fluxcd.io/…`, `helm.toolkit.fluxcd.io/…`), and both by the fields that they own where they leave
neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pointsman.cli import resources
from pointsman.cluster.resources import Resource

_ARGO = "argocd.argoproj.io/"
_FLUX = {"kustomize.toolkit.fluxcd.io/": "Kustomization", "helm.toolkit.fluxcd.io/": "HelmRelease"}
_MANAGERS = {
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
}
# What a resource may carry to be left alone by Flux.
_LEFT_ALONE = {
    "kustomize.toolkit.fluxcd.io/reconcile": ("disabled",),
    "kustomize.toolkit.fluxcd.io/ssa": ("IfNotPresent", "Ignore"),
    "helm.toolkit.fluxcd.io/driftDetection": ("disabled",),
}


@dataclass(frozen=True, slots=True)
class Owner:
    """Who applies a resource from Git."""

    name: str
    """As people call it: `Argo CD (application search)`."""
    is_argo: bool

    def undoes(self, field: str) -> str:
        """Return what becomes of an edit of a field of the live resource, as a clause."""
        when = "within seconds where selfHeal is on, else at its next sync" if self.is_argo else "when it looks next"
        return f"{self.name} applies this from Git and puts {field} back {when}"


def owner(resource: Resource) -> Owner | None:
    """Return who applies a resource from Git; None where nobody is known to, or it is told to leave it alone."""
    meta = resources.metadata(resource)
    labels: Mapping[str, str] = meta.get("labels") or {}
    annotations: Mapping[str, str] = meta.get("annotations") or {}
    marks = {**labels, **annotations}
    if any(marks.get(key) in values for key, values in _LEFT_ALONE.items()):
        return None
    if any(key.startswith(_ARGO) for key in marks):
        application = annotations.get(f"{_ARGO}tracking-id", "").partition(":")[0] or labels.get(f"{_ARGO}instance", "")
        return Owner(f"Argo CD (application {application})" if application else "Argo CD", True)
    for prefix, kind in _FLUX.items():
        if any(key.startswith(prefix) for key in marks):
            where = "/".join(part for key in ("namespace", "name") if (part := labels.get(f"{prefix}{key}")))
            return Owner(f"Flux ({kind} {where})" if where else "Flux", False)
    for entry in meta.get("managedFields") or ():
        if (found := _MANAGERS.get(entry.get("manager", ""))) is not None:
            return Owner(found, found == "Argo CD")
    return None
