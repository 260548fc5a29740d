"""Which embedder stands for a model, and which space do its vectors live in? The one place that knows them
all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from pointsman.access import Access
from pointsman.api.conditions import Reason
from pointsman.api.dataset import Endpoint, ModelChoice
from pointsman.core.recipes import Space
from pointsman.embedders import wordllama
from pointsman.errors import Terminal
from pointsman.ports import Embedder


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a model behind an endpoint is waited for: long by work, and briefly by whoever has a person waiting."""

    attempts: int = 6
    """How often one batch is sent."""
    seconds: float = 600.0
    """How long an endpoint may ask for patience."""
    read_seconds: float = 120.0
    """How long an answer may take."""


WORK = Patience()


def space_of(model: ModelChoice) -> Space:
    """Return the space that a declared model's vectors live in."""
    if model.openai is not None:
        return Space(
            provider="openai",
            model=model.openai.model,
            revision=model.openai.revision,
            dimensions=model.openai.dimensions,
            query_prefix=model.query_prefix,
            document_prefix=model.document_prefix,
        )
    # A declared model is exactly one of the two.
    assert model.wordllama is not None
    return Space(
        provider="wordllama",
        model=wordllama.MODEL,
        revision=wordllama.revision(),
        dimensions=model.wordllama.dimensions,
        query_prefix=model.query_prefix,
        document_prefix=model.document_prefix,
    )


def open_embedder(
    recipe_space: Space,
    endpoint: Endpoint | None,
    api_key: str | None,
    access: Access,
    model: ModelChoice,
    patience: Patience = WORK,
) -> Embedder:
    """Return an embedder whose vectors live in a space; close it after use.

    The space decides what is computed; `endpoint`, `api_key` and `model` only how it is reached. Raises
    Terminal(ENDPOINT_NOT_FOUND, ENDPOINT_NOT_ALLOWED, MODEL_CHANGED) or Retryable(HOST_NOT_FOUND).
    """
    match recipe_space.provider:
        case "wordllama":
            if recipe_space.revision != wordllama.revision():
                raise Terminal(
                    Reason.MODEL_CHANGED,
                    f"this release carries {wordllama.MODEL} in revision {wordllama.revision()}, the recipe wants "
                    f"{recipe_space.revision}; declare a new version, or run the release that carries it",
                )
            return wordllama.Wordllama(recipe_space.dimensions)
        case "openai":
            if endpoint is None:
                raise Terminal(
                    Reason.ENDPOINT_NOT_FOUND,
                    f"no endpoint is declared for model {recipe_space.model}; add it to spec.endpoints",
                )
            # Imported when wanted: the HTTP client is of no use to the embedded model.
            from pointsman.embedders import openai

            return openai.OpenAI(
                endpoint.base_url,
                recipe_space.model,
                recipe_space.dimensions,
                access,
                revision=recipe_space.revision,
                send_dimensions=model.openai is not None and model.openai.send_dimensions,
                api_key=api_key,
                attempts=patience.attempts,
                patience=patience.seconds,
                read_seconds=patience.read_seconds,
            )
        case _:
            assert_never(recipe_space.provider)
