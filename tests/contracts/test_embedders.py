"""One contract for every embedder, and what an endpoint may do to the one over HTTP."""

from __future__ import annotations

import datetime
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openai as official
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.servers.openai_server import MODEL, OpenAIServer, Switches

from pointsman import ports
from pointsman.access import Access
from pointsman.api.conditions import Reason
from pointsman.api.dataset import Endpoint, ModelChoice, OpenAIModel, WordllamaModel
from pointsman.core import drift
from pointsman.embedders import registry
from pointsman.embedders.openai import OpenAI
from pointsman.embedders.wordllama import Wordllama
from pointsman.errors import PointsmanError, Retryable, Terminal, TextsRefused
from pointsman.ports import Embedder, Spent

LOCAL = Access(allow_loopback=True)
TEXTS = ["a railway", "points and switches", "eine Weiche", "転轍手", "🚂", " ", "x" * 5000]


@contextmanager
def serving(**switches: Any) -> Iterator[OpenAIServer]:
    with OpenAIServer(Switches(**switches)) as server:
        yield server


@contextmanager
def embedding(server: OpenAIServer, dimensions: int = 256, **options: Any) -> Iterator[OpenAI]:
    options = {"first_backoff": 0.001, **options}
    embedder = OpenAI(server.url, MODEL, dimensions, LOCAL, **options)
    try:
        yield embedder
    finally:
        embedder.close()


def refusal(kind: type[PointsmanError], reason: Reason, embedder: Embedder, texts: list[str]) -> str:
    with pytest.raises(kind) as caught:
        embedder.embed(texts)
    assert caught.value.reason is reason
    assert "PRIVATE" not in caught.value.message
    assert caught.value.__cause__ is None
    return caught.value.message


class Parts:
    """Keeps what is handed out, by position."""

    def __init__(self) -> None:
        self.vectors: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __call__(self, start: int, vectors: np.ndarray) -> None:
        with self._lock:
            for position, vector in enumerate(vectors, start):
                assert position not in self.vectors
                self.vectors[position] = vector


# The contract.


@pytest.fixture(params=["wordllama 64", "wordllama 256", "openai", "openai with lists", "openai cut to 128"])
def embedder(request: pytest.FixtureRequest) -> Iterator[Embedder]:
    name = request.param
    if name.startswith("wordllama"):
        yield Wordllama(int(name.split()[1]))
    elif name == "openai cut to 128":
        with serving() as server, embedding(server, 128, send_dimensions=True) as found:
            yield found
    else:
        with serving(ignore_base64=name.endswith("lists")) as server, embedding(server) as found:
            yield found


def test_vectors_have_the_declared_shape_and_unit_length(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.identity().dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-6)


def test_no_texts_give_no_vectors_of_the_right_width(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.identity().dimensions)


def test_thousands_of_texts_come_back_in_order(embedder: Embedder) -> None:
    texts = [f"document {number} about {'rails' if number % 2 else 'water'}" for number in range(3000)]
    vectors = embedder.embed(texts)
    some = [0, 1, 255, 256, 257, 1023, 1024, 2047, 2048, 2999]
    alone = np.concatenate([embedder.embed([texts[number]]) for number in some])
    assert np.abs(vectors[some] - alone).max() < 1e-6


def test_every_vector_is_handed_out_once_before_the_call_returns(embedder: Embedder) -> None:
    texts = [f"document {number}" for number in range(1500)]
    found = Parts()
    vectors = embedder.embed(texts, found)
    assert np.array_equal([found.vectors[position] for position in range(1500)], vectors)


def test_an_error_of_who_is_handed_a_part_ends_the_call(embedder: Embedder) -> None:
    def full(start: int, vectors: np.ndarray) -> None:
        raise Retryable(Reason.STORE_UNREACHABLE, "full")

    with pytest.raises(Retryable) as caught:
        embedder.embed(["a"] * 1000, full)
    assert caught.value.message == "full"


def test_the_same_text_has_the_same_vector_whatever_it_is_sent_with(embedder: Embedder) -> None:
    once = embedder.embed(TEXTS)
    again = embedder.embed(TEXTS[::-1])[::-1]
    assert drift.distance(once, again) < 1e-6


def test_the_probes_stay_where_they_are(embedder: Embedder) -> None:
    assert drift.distance(embedder.embed(drift.PROBES), embedder.embed(drift.PROBES)) < 1e-6


def test_different_texts_have_different_vectors(embedder: Embedder) -> None:
    vectors = embedder.embed(drift.PROBES)
    assert np.triu(vectors @ vectors.T, 1).max() < 0.99


def test_an_empty_text_is_refused_with_a_count(embedder: Embedder) -> None:
    message = refusal(Terminal, Reason.MODEL_INVALID, embedder, ["a", "", "b", ""])
    assert message == "2 of 4 texts are empty, wanted one character at least in each"


def test_the_identity_says_which_model_answers(embedder: Embedder) -> None:
    embedder.embed(["a"])
    identity = embedder.identity()
    assert identity.name in ("l2_supercat", MODEL)
    assert identity.revision or identity.name == MODEL


def test_many_threads_share_one_embedder(embedder: Embedder) -> None:
    expected = embedder.embed(TEXTS)
    found: list[float] = []

    def work() -> None:
        found.extend(drift.distance(expected, embedder.embed(TEXTS)) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert max(found) < 1e-6


def test_a_closed_embedder_refuses_and_may_be_closed_twice(embedder: Embedder) -> None:
    embedder.close()
    embedder.close()
    refusal(Retryable, Reason.MODEL_UNREACHABLE, embedder, ["a"])


# The embedded model.


def test_the_cut_model_is_the_beginning_of_the_whole_one() -> None:
    whole, cut = Wordllama(256).embed(TEXTS)[:, :64], Wordllama(64).embed(TEXTS)
    assert np.abs(cut - whole / np.linalg.norm(whole, axis=1, keepdims=True)).max() < 1e-6


def test_the_embedded_model_agrees_with_its_library() -> None:
    import wordllama

    library = wordllama.WordLlama.load(dim=256, cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    expected = library.embed(TEXTS, norm=True)
    assert np.abs(Wordllama(256).embed(TEXTS) - expected).max() < 1e-6


def test_whatever_is_not_empty_has_a_vector() -> None:
    strange = ["\x00", "\u200b", "\ufeff", "\n", "ﷺ", "𐍈", "</s>", "<unk>", "\u0301", "\U0010ffff", "\ue000"]
    assert np.isfinite(Wordllama(64).embed(strange)).all()


def test_loading_the_model_leaves_logging_as_it_is() -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    Wordllama(64)
    assert (list(root.handlers), root.level) == before


# The endpoint: what it agrees with.


def test_the_official_client_and_ours_find_the_same_vectors() -> None:
    with serving(api_key="k") as server, embedding(server, api_key="k\n") as ours:
        with official.OpenAI(base_url=server.url, api_key="k") as client:
            whole = client.embeddings.create(model=MODEL, input=TEXTS)
            floats = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
            assert whole.model == MODEL
            assert whole.usage.total_tokens > 0
            assert [model.id for model in client.models.list()] == [MODEL]
            with pytest.raises(official.BadRequestError) as caught:
                client.embeddings.create(model=MODEL, input="")
            assert caught.value.param == "input"
            with pytest.raises(official.NotFoundError):
                client.embeddings.create(model="other", input="a")
        for answer in (whole, floats):
            theirs = np.array([item.embedding for item in answer.data], dtype=np.float32)
            assert np.abs(ours.embed(TEXTS) - theirs).max() < 1e-6


def test_tokens_are_counted_as_the_endpoint_states_them() -> None:
    with serving(most_inputs=3, too_many_status=413) as server, embedding(server) as ours:
        with official.OpenAI(base_url=server.url, api_key="k") as client:
            each = [client.embeddings.create(model=MODEL, input=[text]).usage.prompt_tokens for text in TEXTS]
        assert ports.spent(ours) == Spent()
        ours.embed(TEXTS)
        ours.embed(TEXTS[:1])
        assert ports.spent(ours) == Spent(sum(each) + each[0], sum(each) + each[0])
        assert ports.spent(ours).since(Spent(sum(each), sum(each))) == Spent(each[0], each[0])


@pytest.mark.parametrize(
    "switches",
    [
        pytest.param({"omit": ("usage",)}, id="nothing"),
        *(
            pytest.param({"usage": usage}, id=f"{usage}")
            for usage in ([], {}, "12", {"prompt_tokens": "12"}, {"prompt_tokens": True}, {"prompt_tokens": 1.5})
        ),
        *(pytest.param({"usage": {"prompt_tokens": count}}, id=f"{count} tokens") for count in (0, -1, 10**12)),
    ],
)
def test_tokens_are_estimated_where_the_endpoint_states_none_that_can_be(switches: dict[str, Any]) -> None:
    with serving(**switches) as server, embedding(server) as ours:
        ours.embed(["night train", "é"])
        assert ports.spent(ours) == Spent(4 + 1, 0)


def test_the_embedded_model_has_no_price() -> None:
    embedder = Wordllama(64)
    embedder.embed(["a"])
    assert ports.spent(embedder) == Spent()


def test_dimensions_are_sent_only_when_asked_for() -> None:
    with serving() as server:
        with embedding(server, 256) as embedder:
            embedder.embed(["a"])
        with embedding(server, 64, send_dimensions=True) as embedder:
            embedder.embed(["a"])
        assert server.requests == [
            {"model": MODEL, "encoding_format": "base64"},
            {"model": MODEL, "encoding_format": "base64", "dimensions": 64},
        ]


@pytest.mark.parametrize(
    "switches",
    [
        pytest.param({"shuffle": True}, id="in another order"),
        pytest.param({"ignore_base64": True, "shuffle": True}, id="as lists in another order"),
        pytest.param({"refuse_base64": True}, id="only without an encoding"),
        pytest.param({"omit": ("index",)}, id="without indexes"),
        pytest.param({"omit": ("model", "usage")}, id="without model and usage"),
        pytest.param({"spaced_json": True}, id="with blanks in the JSON"),
        pytest.param({"drop": 2}, id="after hanging up twice"),
        pytest.param({"truncate": 2}, id="after breaking off twice"),
        pytest.param({"refuse": 1, "refuse_status": 500}, id="after one 500"),
        pytest.param({"refuse": 3, "refuse_status": 503}, id="after three 503s"),
        pytest.param({"refuse": 2, "refuse_status": 502}, id="after two 502s"),
        pytest.param({"refuse": 3, "refuse_headers": {"retry-after-ms": "5"}}, id="after three 429s"),
        pytest.param(
            {"refuse": 1, "refuse_status": 503, "refuse_headers": {"Retry-After": "0"}}, id="503, Retry-After"
        ),
        pytest.param({"most_inputs": 32, "too_many_status": 413}, id="32 at a time, as TEI"),
        pytest.param({"most_inputs": 10, "too_many_status": 400}, id="10 at a time, as DashScope"),
        pytest.param({"most_inputs": 1, "too_many_status": 422}, id="one at a time"),
    ],
)
def test_an_endpoint_that_answers_in_its_own_way_still_gives_the_right_vectors(
    switches: dict[str, Any],
) -> None:
    texts = [f"text number {number}" for number in range(300)]
    with serving(**switches) as server, embedding(server) as embedder:
        found = embedder.embed(texts)
    assert np.abs(found - Wordllama(256).embed(texts)).max() < 1e-6


def test_a_limit_on_the_batch_is_learnt_and_then_kept_to() -> None:
    texts = [f"text number {number}" for number in range(640)]
    # One at a time: when the limit is tried again, as many are refused as are under way.
    with serving(most_inputs=32, too_many_status=413) as server, embedding(server, concurrency=1) as embedder:
        for _ in range(3):
            embedder.embed(texts)
        server.batches.clear()
        server.statuses.clear()
        embedder.embed(texts)
    assert server.statuses.count(200) <= 25
    assert len(server.statuses) - server.statuses.count(200) <= 3


def test_batches_are_cut_by_tokens_as_well() -> None:
    texts = ["word " * 4_000] * 60
    with serving() as server, embedding(server) as embedder:
        embedder.embed(texts)
    assert max(server.batches) * 4_000 * 5 / 3 <= 250_000
    assert sum(server.batches) == 60


def test_requests_run_at_the_same_time_but_not_too_many() -> None:
    texts = [f"text number {number}" for number in range(4000)]
    with serving() as server, embedding(server, concurrency=3) as embedder:
        embedder.embed(texts)
    assert 2 <= server.most_at_once <= 3


# The endpoint: pace.


def test_stated_budgets_are_kept_so_that_nothing_is_refused() -> None:
    texts = [f"text number {number}" for number in range(2000)]
    with serving(limit_requests=4, reset_seconds=0.3) as server, embedding(server, concurrency=1) as embedder:
        embedder.embed(["a"])
        embedder.embed(texts)
    assert server.statuses.count(429) <= 1


def test_an_endpoint_without_patience_ends_ours() -> None:
    with serving(refuse=99, refuse_headers={"Retry-After": "900"}) as server, embedding(server) as embedder:
        message = refusal(Retryable, Reason.MODEL_RATE_LIMITED, embedder, ["a"])
    assert message == (
        "the endpoint asks for another 900 s after 0 s of waiting, one batch waits at most 600 s; "
        "raise the account's rate limit"
    )


def test_refusals_without_a_time_end_when_patience_does() -> None:
    with serving(refuse=999) as server, embedding(server, patience=0.8) as embedder:
        refusal(Retryable, Reason.MODEL_RATE_LIMITED, embedder, ["a"])
        assert len(server.batches) >= 2


def test_a_used_up_quota_is_not_waited_for() -> None:
    with serving(refuse=1, refuse_code="insufficient_quota") as server, embedding(server) as embedder:
        message = refusal(Retryable, Reason.MODEL_RATE_LIMITED, embedder, ["a"])
    assert message == "the account's quota is used up; raise it"


# The endpoint: what is refused.


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            "dims",
            "the endpoint answers with vectors of 255 dimensions, wanted 256 as declared; "
            "correct dimensions, or set sendDimensions",
        ),
        ("nan", "1 of 3 vectors are not finite, wanted numbers only; ask the model's owner"),
        ("inf", "1 of 3 vectors are not finite, wanted numbers only; ask the model's owner"),
        ("zero", "1 of 3 vectors are zero, wanted a direction in each; ask the model's owner"),
        ("short", "the endpoint answers with 2 embeddings, wanted 3, one for each text"),
        ("doubled", "the endpoint answers with indexes that are missing or doubled, wanted each of 0 to 2 once"),
        (
            "html",
            "the endpoint answers with no JSON, wanted OpenAI's format; check that baseURL leads to its embeddings API",
        ),
        (
            "error",
            "the endpoint answers with no list of embeddings, wanted OpenAI's format; "
            "check that baseURL leads to its embeddings API",
        ),
        (
            "huge",
            "127.0.0.1 answers with more than 88576 bytes, wanted fewer for the declared dimensions; check them",
        ),
    ],
)
@pytest.mark.parametrize("ignore_base64", [False, True], ids=["base64", "lists"])
def test_vectors_that_cannot_be_used_are_refused(spoil: str, message: str, ignore_base64: bool) -> None:
    with serving(spoil=spoil, ignore_base64=ignore_base64) as server, embedding(server) as embedder:
        if spoil in ("nan", "inf") and ignore_base64:
            # NaN is no JSON.
            refusal(Terminal, Reason.MODEL_INVALID, embedder, ["a", "b", "c"])
        else:
            assert refusal(Terminal, Reason.MODEL_INVALID, embedder, ["a", "b", "c"]) == message


@pytest.mark.parametrize("spoil", ["text", "nested"])
def test_embeddings_of_another_kind_are_refused(spoil: str) -> None:
    with serving(spoil=spoil, ignore_base64=spoil == "nested") as server, embedding(server) as embedder:
        refusal(Terminal, Reason.MODEL_INVALID, embedder, ["a"])


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (401, Terminal, Reason.MODEL_UNAUTHORIZED),
        (403, Terminal, Reason.MODEL_UNAUTHORIZED),
        (404, Terminal, Reason.MODEL_REJECTED),
        (400, Terminal, Reason.MODEL_REJECTED),
        (405, Terminal, Reason.MODEL_REJECTED),
        (500, Retryable, Reason.MODEL_UNREACHABLE),
        (503, Retryable, Reason.MODEL_UNREACHABLE),
    ],
)
def test_an_endpoint_that_keeps_refusing_is_told_apart_by_its_status(
    status: int, kind: type[PointsmanError], reason: Reason
) -> None:
    with serving(refuse=999, refuse_status=status) as server, embedding(server) as embedder:
        assert str(status) in refusal(kind, reason, embedder, ["a", "b"])


def test_a_wrong_key_is_refused_and_never_shown() -> None:
    with serving(api_key="right") as server, embedding(server, api_key="PRIVATE") as embedder:
        refusal(Terminal, Reason.MODEL_UNAUTHORIZED, embedder, ["a"])


def test_a_key_that_would_split_the_header_is_refused_and_never_shown() -> None:
    with pytest.raises(Terminal) as caught:
        OpenAI("http://127.0.0.1:1/v1", MODEL, 256, LOCAL, api_key="a\nHost: PRIVATE")
    assert caught.value.reason is Reason.MODEL_UNAUTHORIZED
    assert "PRIVATE" not in str(caught.value)


def test_texts_that_are_refused_are_told_by_position_and_all_others_are_handed_out() -> None:
    texts = [f"text number {number}" for number in range(1000)]
    texts[300], texts[700] = "c" * 101, "d" * 101
    found = Parts()
    with serving(most_characters=100) as server, embedding(server) as embedder:
        embedder.embed(texts[:256])
        with pytest.raises(TextsRefused) as caught:
            embedder.embed(texts, found)
        sent = len(server.statuses)
        embedder.embed(texts[:256])
    assert caught.value.positions == [300, 700]
    assert caught.value.message == "the model refuses 2 texts with HTTP 400"
    assert sorted(found.vectors) == [number for number in range(1000) if number not in (300, 700)]
    # Found by halving, and with batches as large as before when they are found.
    assert sent < 150
    assert server.batches[-1] == 256


def test_an_endpoint_that_begins_to_refuse_everything_is_given_up() -> None:
    with serving(most_characters=100) as server, embedding(server) as embedder:
        embedder.embed(["a"])
        with pytest.raises(TextsRefused) as caught:
            embedder.embed(["c" * 101] * 1000)
    # Each of the four threads may be about to find one more.
    assert 20 <= len(caught.value.positions) < 24


@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_was_answered_before_a_call_failed_is_handed_out_once(concurrency: int) -> None:
    texts = [f"text number {number}" for number in range(2000)]
    found = Parts()
    options = {"attempts": 2, "concurrency": concurrency}
    with serving(answer=2) as server, embedding(server, **options) as embedder, pytest.raises(Retryable):
        embedder.embed(texts, found)
    assert len(found.vectors) == server.answered >= 512
    expected = Wordllama(256).embed([texts[number] for number in sorted(found.vectors)])
    assert np.abs(np.array([found.vectors[number] for number in sorted(found.vectors)]) - expected).max() < 1e-6


def test_a_redirect_is_not_followed() -> None:
    with serving() as target, serving(redirect_to=target.url) as server, embedding(server) as embedder:
        refusal(Terminal, Reason.ENDPOINT_NOT_ALLOWED, embedder, ["a"])
        assert target.batches == []


def test_a_model_that_changes_its_name_within_a_run_stops_it() -> None:
    with serving() as server, embedding(server) as embedder:
        embedder.embed(["a"])
        server.switches.model, server.switches.swapped = "another", True
        message = refusal(Terminal, Reason.MODEL_CHANGED, embedder, ["a"])
    assert message == (f"the endpoint answers as another, before as {MODEL}; declare a new version for the new model")


def test_a_model_swapped_under_its_name_is_found_by_the_probes() -> None:
    with serving() as server, embedding(server) as embedder:
        pinned = embedder.embed(drift.PROBES)
        server.switches.swapped = True
        assert drift.distance(pinned, embedder.embed(drift.PROBES)) > drift.LIMIT


def test_a_lone_surrogate_is_refused_without_being_shown() -> None:
    with serving() as server, embedding(server) as embedder:
        message = refusal(Terminal, Reason.MODEL_INVALID, embedder, ["PRIVATE \ud800"])
    assert message == "a text is no valid Unicode, wanted no lone surrogates"


def test_nobody_listening_is_said_after_a_few_attempts() -> None:
    with serving() as server:
        url = server.url
    embedder = OpenAI(url, MODEL, 256, LOCAL, attempts=3, first_backoff=0.001)
    message = refusal(Retryable, Reason.MODEL_UNREACHABLE, embedder, ["a"])
    embedder.close()
    assert message.endswith("cannot be reached or hung up (ConnectError); check the endpoint")


def test_an_endpoint_that_does_not_answer_in_time_is_given_up() -> None:
    hold = threading.Event()
    with serving(hold=hold) as server, embedding(server, attempts=2, read_seconds=0.05) as embedder:
        message = refusal(Retryable, Reason.MODEL_UNREACHABLE, embedder, ["a"])
        hold.set()
    assert message.endswith("did not answer in time; check the endpoint")


@pytest.mark.parametrize("texts", [1, 2000], ids=["a query", "a batch"])
def test_closing_ends_what_is_under_way_at_once(texts: int) -> None:
    hold = threading.Event()
    with serving(hold=hold) as server, embedding(server) as embedder:
        failures: list[PointsmanError] = []
        seconds = _in_thread(lambda: embedder.embed(["a"] * texts), failures)
        while not server.batches:
            time.sleep(0.005)
        started = time.monotonic()
        embedder.close()
        seconds()
        assert time.monotonic() - started < 2
        hold.set()
    assert [failure.reason for failure in failures] == [Reason.MODEL_UNREACHABLE]


def test_closing_ends_a_wait_for_the_rate_limit_at_once() -> None:
    with serving(refuse=99, refuse_headers={"Retry-After": "300"}) as server, embedding(server) as embedder:
        failures: list[PointsmanError] = []
        join = _in_thread(lambda: embedder.embed(["a"]), failures)
        while not server.statuses:
            time.sleep(0.005)
        started = time.monotonic()
        embedder.close()
        join()
        assert time.monotonic() - started < 2
    assert [failure.reason for failure in failures] == [Reason.MODEL_UNREACHABLE]


def _in_thread(call: Callable[[], Any], failures: list[PointsmanError]) -> Callable[[], None]:
    def work() -> None:
        try:
            call()
        except PointsmanError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread.join


def test_texts_and_keys_are_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(drop=1) as server, embedding(server, api_key="PRIVATE-KEY") as embedder:
        embedder.embed(["PRIVATE TEXT"])
    assert caplog.text
    assert "PRIVATE" not in caplog.text


# The endpoint: where requests go.


def test_the_connection_goes_to_the_checked_address_under_the_hosts_name() -> None:
    with serving() as server:
        asked: list[str] = []

        def resolve(host: str, port: int) -> list[str]:
            asked.append(host)
            # A second answer would lead elsewhere, as with DNS rebinding.
            return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.99"]

        local = Access(allow_loopback=True, resolve=resolve)
        embedder = OpenAI(f"http://models.example.com:{server.port}/v1/", MODEL, 256, local)
        embedder.embed(["a"])
        embedder.embed(["b"])
        embedder.close()
        assert asked == ["models.example.com"]
        assert server.headers[0]["host"] == f"models.example.com:{server.port}"


def test_a_server_that_moved_is_found_again_and_judged_again() -> None:
    with serving() as server:
        answers = [["127.0.0.2"], ["127.0.0.1"]]
        local = Access(allow_loopback=True, resolve=lambda host, port: answers.pop(0))
        embedder = OpenAI(f"http://models.example.com:{server.port}/v1", MODEL, 256, local, first_backoff=0.001)
        assert embedder.embed(["a"]).shape == (1, 256)
        embedder.close()
        answers = [["127.0.0.2"], ["169.254.169.254"]]
        embedder = OpenAI(f"http://models.example.com:{server.port}/v1", MODEL, 256, local, first_backoff=0.001)
        refusal(Terminal, Reason.ENDPOINT_NOT_ALLOWED, embedder, ["a"])
        embedder.close()


def test_an_address_that_is_not_allowed_is_not_connected_to() -> None:
    with serving() as server:
        with pytest.raises(Terminal) as caught:
            OpenAI(server.url, MODEL, 256, Access())
        assert caught.value.reason is Reason.ENDPOINT_NOT_ALLOWED
        assert server.batches == []


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with serving() as server, embedding(server) as embedder:
        assert embedder.embed(["a"]).shape == (1, 256)


def test_certificates_are_checked_against_the_hosts_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = _certificate(tmp_path, "models.example.com")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    local = Access(allow_loopback=True, resolve=lambda host, port: ["127.0.0.1"])
    with serving() as server:
        server.wrap_tls(context)
        right = OpenAI(f"https://models.example.com:{server.port}/v1", MODEL, 256, local)
        assert right.embed(["a"]).shape == (1, 256)
        right.close()
        wrong = OpenAI(
            f"https://other.example.com:{server.port}/v1", MODEL, 256, local, attempts=1, first_backoff=0.001
        )
        message = refusal(Retryable, Reason.MODEL_UNREACHABLE, wrong, ["a"])
        wrong.close()
    assert "shows a certificate that is not trusted for it" in message


def _certificate(folder: Path, name: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


# The registry.


def test_a_space_is_opened_by_what_it_says() -> None:
    embedded = ModelChoice(wordllama=WordllamaModel(dimensions=64))
    remote = ModelChoice(
        openai=OpenAIModel(endpoint="main", model=MODEL, revision="r1", dimensions=64, send_dimensions=True),
        query_prefix="query: ",
    )
    with serving() as server:
        main = Endpoint(name="main", base_url=server.url)
        for choice, endpoint in ((embedded, None), (remote, main)):
            space = registry.space_of(choice)
            embedder = registry.open_embedder(space, endpoint, None, LOCAL, choice)
            vectors = embedder.embed(["a"])
            assert vectors.shape == (1, 64)
            identity = embedder.identity()
            assert (identity.name, identity.revision, identity.dimensions) == (
                space.model,
                space.revision,
                64,
            )
            embedder.close()
    assert registry.space_of(remote).query_prefix == "query: "


def test_a_missing_endpoint_and_a_missing_revision_are_said() -> None:
    remote = ModelChoice(openai=OpenAIModel(endpoint="main", model=MODEL, dimensions=64))
    with pytest.raises(Terminal) as caught:
        registry.open_embedder(registry.space_of(remote), None, None, LOCAL, remote)
    assert caught.value.reason is Reason.ENDPOINT_NOT_FOUND
    embedded = ModelChoice(wordllama=WordllamaModel(dimensions=64))
    old = registry.Space(provider="wordllama", model="l2_supercat", revision="older", dimensions=64)
    with pytest.raises(Terminal) as caught:
        registry.open_embedder(old, None, None, LOCAL, embedded)
    assert caught.value.reason is Reason.MODEL_CHANGED
