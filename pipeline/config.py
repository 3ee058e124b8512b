"""All settings, read once: defaults <- one TOML file <- HEADRACE_* environment variables.

`deploy/worker.toml` is the manual: every key below stands there with a comment (a test checks it). An unknown or
mistyped key is a `ConfigError` that names it. Secrets come from a file or from SECRETS' variables when they are
used (`secret`): no `Settings` holds one, so none can be printed.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from features.domain import Action, Attribute, Context, Domain
from features.store.redis_url import target
from recommender.model.training_settings import TrainingSettings
from recommender.quotas import Quotas

FILTERS = ("available", "bought", "negative", "blocked")

FILE_BYTES_MAX = 4 << 20
SECRET_BYTES_MAX = 64 << 10

Positive = Annotated[int, msgspec.Meta(ge=1)]
Millis = Annotated[int, msgspec.Meta(ge=0)]


class ConfigError(ValueError):
    """A setting that is unknown, mistyped or contradicts another; the message names it."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every section refuses unknown keys."""


class Kafka(Section, frozen=True, forbid_unknown_fields=True):
    """The broker and how the worker reads and writes it."""

    bootstrap: str = "127.0.0.1:9092"
    group: str = "headrace"
    topic_prefix: str = ""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password_file: str = ""
    ssl_ca_file: str = ""
    ssl_certificate_file: str = ""
    ssl_key_file: str = ""
    session_timeout_ms: Positive = 6_000
    heartbeat_ms: Positive = 1_500
    commit_interval_ms: Positive = 500
    fetch_wait_ms: Positive = 500
    fetch_max_bytes: Positive = 17_000_000
    message_max_bytes: Positive = 16_777_216
    linger_ms: Millis = 0
    delivery_timeout_ms: Positive = 30_000


class Redis(Section, frozen=True, forbid_unknown_fields=True):
    """The state. `shards` and `app` are fixed for the life of the data."""

    url: str = "redis://127.0.0.1:6379/0"
    username: str = ""
    password_file: str = ""
    ssl_ca_file: str = ""
    ssl_certificate_file: str = ""
    ssl_key_file: str = ""
    app: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "headrace"
    shards: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16
    timeout_ms: Positive = 2_000
    beat_ms: Positive = 1_000

    def __post_init__(self) -> None:
        try:
            named = target(self.url)
        except ValueError as error:
            raise ValueError(f"url: {error}") from None
        if self.ssl_ca_file and not named.tls:
            raise ValueError("ssl_ca_file: redis.url has no TLS; it begins with rediss:// or rediss+cluster://")


class Recommend(Section, frozen=True, forbid_unknown_fields=True):
    """The answer: how many, from where, how fresh."""

    k: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    candidates_max: Annotated[int, msgspec.Meta(ge=1, le=5000)] = 200
    quotas: Quotas = Quotas()
    filters: list[str] = msgspec.field(default_factory=lambda: ["available"])
    blocked_items: list[str] = msgspec.field(default_factory=list)
    freshness_ms: Millis = 1_000
    served_sample: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
    reasons: Annotated[int, msgspec.Meta(ge=0, le=20)] = 0

    def __post_init__(self) -> None:
        if unknown := [name for name in self.filters if name not in FILTERS]:
            raise ValueError(f"filters: no filter named {unknown[0]!r}, there are {', '.join(FILTERS)}")


class Overload(Section, frozen=True, forbid_unknown_fields=True):
    """How fast answers have to be; what they may cost under load follows from it."""

    deadline_ms: Positive = 1_000
    calm_ms: Positive = 2_000


class Model(Section, frozen=True, forbid_unknown_fields=True):
    """The registry below `directory`/`name`; which version serves is said on `model_control`."""

    directory: str = "models"
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")] = "ranker"
    poll_ms: Positive = 1_000
    budget_ms: Annotated[float, msgspec.Meta(gt=0)] = 50.0
    cascade_trees: Millis = 0
    cascade_keep: Positive = 100


class Worker(Section, frozen=True, forbid_unknown_fields=True):
    """The process: batches, queues, ports, logs."""

    slice_max: Positive = 500
    batch_max: Positive = 2_000
    slices_queued_max: Positive = 8
    web_host: str = "127.0.0.1"
    web_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 6066
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 9108
    data_dir: str = "var"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    watchdog_ms: Positive = 20_000


class Settings(Section, frozen=True, forbid_unknown_fields=True):
    """The whole configuration."""

    kafka: Kafka = Kafka()
    redis: Redis = Redis()
    recommend: Recommend = Recommend()
    overload: Overload = Overload()
    model: Model = Model()
    training: TrainingSettings = TrainingSettings()
    worker: Worker = Worker()
    actions: tuple[Action, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    context: tuple[Context, ...] = ()
    item_context: tuple[str, ...] = ()
    session_gap_min: Positive = 30
    user_retention_days: Positive = 90
    item_retention_days: Positive = 90

    @property
    def domain(self) -> Domain:
        """The part that the features and the recommender see."""
        return Domain(
            actions=self.actions,
            attributes=self.attributes,
            context=self.context,
            item_context=self.item_context,
            session_gap_ms=self.session_gap_min * 60_000,
            user_retention_ms=self.user_retention_days * 86_400_000,
            item_retention_ms=self.item_retention_days * 86_400_000,
        )


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Settings from `path` (None: defaults) under `environ`'s HEADRACE_<SECTION>_<KEY> variables.

    Raises `ConfigError` naming the file, the variable or the key.
    """
    tree = _read(path) if path else {}
    for variable, value in environ.items():
        _override(tree, variable, value)
    try:
        settings = msgspec.convert(tree, Settings, strict=False)
        _ = settings.domain
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{path or 'settings'}: {error}") from None
    return settings


def require_actions(settings: Settings) -> Settings:
    """`settings`, for those who apply events: without an action every one of them would be a dead letter.

    Raises `ConfigError`.
    """
    if not settings.actions:
        raise ConfigError(
            "no actions are configured: `headrace init DIR` writes a worker.toml with [[actions]] for your data; "
            "name it with --config or HEADRACE_CONFIG"
        )
    return settings


SECRETS = {"kafka.sasl_password": "HEADRACE_KAFKA_SASL_PASSWORD", "redis.password": "HEADRACE_REDIS_PASSWORD"}


def forget_secrets() -> None:
    """For a process that goes on with servers of its own: they have no passwords, and refuse a login with one."""
    for variable in SECRETS.values():
        os.environ.pop(variable, None)


def secret(name: str, file: str) -> str:
    """The secret `name` (of SECRETS) from its variable, else from `file`; empty where neither is given.

    Raises `ConfigError` when the file cannot be read.
    """
    if value := os.environ.get(SECRETS[name]):
        return value
    try:
        return text_of(Path(file), SECRET_BYTES_MAX).strip() if file else ""
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}_file: {error}") from None


def text_of(path: Path, bytes_max: int = FILE_BYTES_MAX) -> str:
    """A small file's text. Raises `OSError`, `UnicodeDecodeError`, and `ConfigError` for what is no file or too big."""
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device never ends
        raise ConfigError(f"{path}: not a file")
    with path.open("rb") as file:
        raw = file.read(bytes_max + 1)
    if len(raw) > bytes_max:
        raise ConfigError(f"{path}: over {bytes_max} bytes")
    return raw.decode()


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text_of(path))
    except ConfigError:
        raise
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file (`headrace init DIR` writes one)") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    except ValueError as error:  # no TOML, no UTF-8, a number of thousands of digits
        raise ConfigError(f"{path}: {error}") from None


_RESERVED = {"HEADRACE_CONFIG", "HEADRACE_DATA", "HEADRACE_RESTARTS", *SECRETS.values()}
_LISTS = ("filters", "blocked_items")
_TABLES = ("quotas", "monotone")


def _override(tree: dict[str, Any], variable: str, value: str) -> None:
    """Lays one HEADRACE_<SECTION>_<KEY> variable over the tree; unknown ones are errors, like unknown keys."""
    if not variable.startswith("HEADRACE_") or variable in _RESERVED or variable.startswith("HEADRACE_TEST_"):
        return
    section, _, key = variable.removeprefix("HEADRACE_").lower().partition("_")
    kinds: dict[str, type[msgspec.Struct]] = {
        "kafka": Kafka,
        "redis": Redis,
        "recommend": Recommend,
        "overload": Overload,
        "model": Model,
        "training": TrainingSettings,
        "worker": Worker,
    }
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{variable}: not valid UTF-8") from None
    if section not in kinds or key not in kinds[section].__struct_fields__:
        raise ConfigError(f"{variable}: no such setting")
    table = tree.setdefault(section, {})
    if isinstance(table, dict):  # what is none is refused with the rest of the file
        table[key] = _parsed(variable, key, value)


def _parsed(variable: str, key: str, value: str) -> Any:
    """A list as JSON or with commas, a table as JSON; others as they are, to be converted by their type."""
    if key in _LISTS and not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    if key not in (*_LISTS, *_TABLES):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"{variable}: {error}") from None
