"""How every process of ours logs in to Redis: the settings and the secret, in the store's own words."""

from __future__ import annotations

from pathlib import Path

from features.store.redis_dial import Login, dial
from features.store.redis_wire import Wire
from pipeline.config import ConfigError, Redis, secret


def login(settings: Redis) -> Login:
    """User, password (from its variable or file) and certificates. Raises `ConfigError` for a file it cannot read."""
    for name in ("ssl_ca_file", "ssl_certificate_file", "ssl_key_file"):
        if (file := getattr(settings, name)) and not Path(file).is_file():
            raise ConfigError(f"redis.{name} {file}: no such file")
    return Login(
        username=settings.username,
        password=secret("redis.password", settings.password_file),
        ca_file=settings.ssl_ca_file,
        cert_file=settings.ssl_certificate_file,
        key_file=settings.ssl_key_file,
    )


def wire(settings: Redis, *, timeout_ms: int | None = None) -> Wire:
    """The wire to the configured Redis, for those who look at it without a store."""
    return dial(settings.url, timeout_s=(timeout_ms or settings.timeout_ms) / 1000, login=login(settings))
