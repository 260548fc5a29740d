"""How is the model of a space reached? What a dataset declares of it; nothing is opened here."""

from __future__ import annotations

from typing import Any

from pointsman.api import dataset as dataset_api
from pointsman.api.conditions import Reason
from pointsman.core.recipes import Space
from pointsman.errors import Terminal


def model_of(spec: dataset_api.Spec, version: str, space: Space) -> dataset_api.ModelChoice:
    """Return how to reach the model of a space: as the version says, or, once it is removed, as any other says."""
    for declared in sorted(spec.versions, key=lambda v: v.name != version):
        model = declared.model
        if model.openai is not None and space.provider == "openai":
            wanted = (space.model, space.dimensions)
            if (model.openai.model, model.openai.dimensions) == wanted:
                return model
        if model.wordllama is not None and space.provider == "wordllama" and declared.name == version:
            return model
    if space.provider == "wordllama":
        dimensions: Any = space.dimensions
        return dataset_api.ModelChoice(wordllama=dataset_api.WordllamaModel(dimensions=dimensions))
    message = f"{version} was removed and no declared version says how to reach {space.model}; declare {version} again"
    raise Terminal(Reason.ENDPOINT_NOT_FOUND, message)


def endpoint_of(spec: dataset_api.Spec, model: dataset_api.ModelChoice) -> dataset_api.Endpoint | None:
    """Return the endpoint that a model names; None for a model that needs none."""
    if model.openai is None:
        return None
    wanted = model.openai.endpoint
    found = next((endpoint for endpoint in spec.endpoints if endpoint.name == wanted), None)
    if found is None:
        declared = ", ".join(endpoint.name for endpoint in spec.endpoints) or "none"
        raise Terminal(Reason.ENDPOINT_NOT_FOUND, f"endpoint {wanted} is not declared, only {declared}")
    return found
