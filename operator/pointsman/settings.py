"""What whoever runs the operator decides, as environment variables. Tenants' resources cannot reach any of it.

Read once, in `cli`, and passed down: nothing below asks the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from pointsman.api import base
from pointsman.api.conditions import Reason
from pointsman.errors import Terminal

PREFIX = "POINTSMAN_"
GATEWAY_PREFIX = f"{PREFIX}GATEWAY_"


def _listed(value: Any) -> Any:
    """Read `a, b` as two entries; anything but text passes through."""
    if not isinstance(value, str):
        return value
    return tuple(entry.strip() for entry in value.split(",") if entry.strip())


def _spanned(value: Any) -> Any:
    """Read `6h` as a duration; anything but text passes through."""
    if not isinstance(value, str):
        return value
    try:
        return base.parse_duration(value)
    except ValueError:
        # The original quotes the value, which may be a secret that was put into the wrong variable.
        raise ValueError("wanted hours, minutes and seconds, such as 15m or 1h30m") from None


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_listed)]
Span = Annotated[timedelta, BeforeValidator(_spanned)]
S = TypeVar("S", bound=BaseSettings)


class Settings(BaseSettings):
    """The settings of the operator and of the commands that open the store."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
        # A rejected value may be a secret that was put into the wrong variable.
        hide_input_in_errors=True,
    )

    store: Annotated[str, Field(min_length=1)] = "~/.local/share/pointsman/store"
    """Where the store is: a local folder, `file:///…` or `s3://bucket/prefix`. Every process that shares the work needs
    the same one."""
    store_options: Annotated[dict[str, str], Field(repr=False)] = {}
    """How the store is opened, as a JSON object of object-store options such as `{"aws_region": "eu-central-1"}`. May
    hold secrets and is never shown."""
    store_options_file: Path | None = None
    """A file with such an object, as of a mounted Secret; what stands there goes before the above. Read again when it
    changes, by the operator and by its workers."""
    namespaces: Names = ()
    """The namespaces that are looked after; empty for all."""
    file_roots: Paths = ()
    """The folders below which resources may name `file://` sources; empty for none."""
    allowed_hosts: Names = ()
    """The hosts that resources may name, `*.example.com` for all below a name; empty for every host with a public
    address. A host with a private address must be listed."""
    allow_loopback: bool = False
    """Whether resources may name hosts on this machine. For the demo and for tests."""
    allow_ambient_credentials: bool = False
    """Whether sources without `credentialsRef` are read with the operator's own identity."""
    allow_memory_backend: bool = False
    """Whether deployments may name `backend.memory`, which is lost with the operator's process and eats its memory. For
    tests."""
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """How many pieces of long work run at once, each in a process of its own."""
    resync_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """The seconds after which everything is reconciled though nothing has called for it. Where there are thousands of
    resources it takes longer: 30 of them are at most looked at in a second."""
    gateways: Names = ()
    """The admin ports of the gateways, such as `http://gateway-0:8081`; what they serve is asked there. In a cluster,
    `POINTSMAN_GATEWAY_SERVICE` finds them."""
    gateway_service: Annotated[str, Field(pattern=r"^$|^[a-z0-9-]+/[a-z0-9.-]+$")] = ""
    """The Service of the gateways' admin ports, as `namespace/name`: its EndpointSlices name every gateway. Its port is
    called `admin`."""
    work_timeout: Annotated[Span, Field(gt=timedelta(0), le=timedelta(days=30))] = timedelta(hours=6)
    """How long one piece of work may take before it is stopped and started again, such as `90m`. For a database to
    build its graph, after pods have loaded an index, it is 13 h at least."""
    metrics_host: Annotated[str, Field(min_length=1)] = "0.0.0.0"
    """The address of the operator's metrics and probes: `/metrics`, `/healthz`, `/readyz`."""
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Their port, which lets in whoever reaches it: keep it inside the cluster. Without one there is neither; 0 takes a
    free one and logs it."""
    job_image: str = ""
    """The image of the pods that embed for datasets with `work.mode: Job`: this release's; empty where none may."""
    job_service_account: str = ""
    """The ServiceAccount of those pods, in the dataset's namespace; empty for its default one. They get no token."""
    job_pull_secrets: Names = ()
    """The Secrets of the dataset's namespace with which that image is pulled."""
    job_priority_classes: Names = ()
    """The PriorityClasses that datasets may name for those pods; empty for none. Pods of a higher one push others out,
    in every namespace."""
    job_store_shared: bool = False
    """Whether those pods reach the operator's own store by the address that the operator has: a volume that many nodes
    can mount. Datasets with `spec.store` do not need it."""
    job_store_claim: str = ""
    """The PersistentVolumeClaim of the dataset's namespace that those pods mount, where the operator's own store is a
    folder: the same volume as the operator's."""
    job_store_mount: str = ""
    """The folder at which that claim is mounted, as the operator has its volume; empty for the store's own."""
    lease_namespace: str = ""
    """The namespace of the Lease that keeps two operators apart; empty for that of the operator's pod, and for
    `default` outside of a cluster."""
    lease_name: Annotated[str, Field(min_length=1)] = "pointsman-operator"
    """The name of that Lease. Operators with other namespaces to look after and another store need another."""
    lease_seconds: Annotated[int, Field(ge=3, le=600)] = 15
    """The seconds after which a Lease that is not renewed is taken over by an operator that stands by. Its holder ends
    itself after two thirds of that time."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe events that are logged."""

    @property
    def store_uri(self) -> str:
        """Return the store's address with a leading `~` resolved."""
        return str(Path(self.store).expanduser()) if self.store.startswith("~") else self.store


class GatewaySettings(BaseSettings):
    """The settings of a gateway, beside those that it shares with the operator."""

    model_config = SettingsConfigDict(**{**Settings.model_config, "env_prefix": GATEWAY_PREFIX})

    auth: Literal["", "none", "tokens", "kubernetes"] = ""
    """Who may search: whoever reaches the port (`none`), whoever has a token of a file (`tokens`), or whom the cluster
    lets create `indexdeployments/search` (`kubernetes`). Has to be said."""
    tokens_file: Path | None = None
    """The file of tokens, one a line: the token or `sha256:` and its hash, and behind it the namespaces that it is for,
    separated by commas; without any, all. Read again when it changes."""
    audiences: Names = ()
    """Whom tokens of the cluster have to be meant for, one of them at least; empty for the API server itself, whose
    tokens open more than this gateway. For `kubernetes` alone."""
    certificate: Path | None = None
    """The certificate for TLS, in PEM; plain HTTP without one. Read again when it changes."""
    key: Path | None = None
    """The private key of the certificate, in PEM."""
    host: Annotated[str, Field(min_length=1)] = "0.0.0.0"
    """The address that queries are answered at."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """The port that queries are answered at; 0 takes a free one and logs it."""
    admin_host: Annotated[str, Field(min_length=1)] = "0.0.0.0"
    """The address of reports, probes and metrics."""
    admin_port: Annotated[int, Field(ge=0, le=65_535)] = 8081
    """The port of reports, probes and metrics, which lets in whoever reaches it: keep it inside the cluster."""
    most_body: Annotated[int, Field(ge=1_024, le=1 << 30)] = 4 << 20
    """The most bytes of a request."""
    most_text: Annotated[int, Field(ge=1, le=1 << 24)] = 32_768
    """The most characters of one text."""
    most_hits: Annotated[int, Field(ge=1, le=16_384)] = 1_000
    """The most hits that one search may ask for."""
    most_queries: Annotated[int, Field(ge=1, le=1_024)] = 64
    """The most queries of one search."""
    concurrency: Annotated[int, Field(ge=1, le=65_536)] = 256
    """The requests to one deployment that may be under way; more are answered with 429."""
    threads: Annotated[int, Field(ge=1, le=256)] = 16
    """The calls to one database that may be under way, each on a connection of its own."""
    timeout: Annotated[Span, Field(gt=timedelta(0), le=timedelta(minutes=10))] = timedelta(seconds=10)
    """How long a request may take, and each call to a model or database for it."""
    drain: Annotated[Span, Field(ge=timedelta(0), le=timedelta(hours=1))] = timedelta(seconds=10)
    """How long requests are still answered after SIGTERM, while whoever sends them learns to go elsewhere."""
    cache: Annotated[int, Field(ge=0, le=10_000_000)] = 10_000
    """The vectors of queries that are kept for each space."""
    traces: bool = False
    """Whether requests are traced by OpenTelemetry, whose own variables say where spans go
    (`OTEL_EXPORTER_OTLP_ENDPOINT`) and how many (`OTEL_TRACES_SAMPLER`). Takes the extra `traces`, which the image
    has."""


def load(**overrides: Any) -> Settings:
    """Read the environment; overrides that are not None win over it.

    Raises Terminal(INVALID_SPEC) that names the variable and what was wanted, never its value.
    """
    return _load(Settings, overrides)


def load_gateway(**overrides: Any) -> GatewaySettings:
    """Read what the environment says of a gateway; otherwise as `load`."""
    return _load(GatewaySettings, overrides)


def reference() -> str:
    """Return the page `docs/settings.md`, generated from the fields."""
    lines = [
        "# Settings",
        "",
        "Environment variables of the operator, and of the commands that open the store. Lists are separated by",
        "commas. This page is generated from `operator/pointsman/settings.py`.",
        "",
        *_table(Settings, PREFIX),
        "",
        "## Of a gateway",
        "",
        f"`pointsman gateway` reads `{PREFIX}NAMESPACES`, `{PREFIX}ALLOWED_HOSTS`, `{PREFIX}ALLOW_LOOPBACK` and",
        f"`{PREFIX}LOG_LEVEL` from above, and these.",
        "",
        *_table(GatewaySettings, GATEWAY_PREFIX),
    ]
    return "\n".join(lines) + "\n"


def _load(kind: type[S], overrides: Mapping[str, Any]) -> S:
    prefix = str(kind.model_config.get("env_prefix"))
    try:
        return kind(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        wanted = first["msg"].removeprefix("Value error, ")
        variable = f"{prefix}{str(first['loc'][0]).upper()}" if first["loc"] else "the settings"
        raise Terminal(Reason.INVALID_SPEC, f"{variable} is not usable: {wanted}") from None
    except SettingsError:
        # The one field that is read as JSON.
        raise Terminal(Reason.INVALID_SPEC, f"{PREFIX}STORE_OPTIONS is not a JSON object of strings") from None


def _table(kind: type[BaseSettings], prefix: str) -> list[str]:
    rows = [
        f"| `{prefix}{name.upper()}` | {_shown(field.default)} | {_one_line(field.description)} |"
        for name, field in kind.model_fields.items()
    ]
    return ["| variable | default | what it decides |", "|---|---|---|", *rows]


def _shown(default: Any) -> str:
    match default:
        case tuple() | Mapping():
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case None | "":
            return "none"
        case timedelta():
            seconds = int(default.total_seconds())
            return f"`{seconds // 3600}h`" if seconds % 3600 == 0 else f"`{seconds}s`"
        case _:
            return f"`{default}`"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
