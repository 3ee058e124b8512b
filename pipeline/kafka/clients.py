"""The settings that every Kafka client of the process shares, in each client library's own words."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import faust

from pipeline.config import ConfigError, Kafka


def password(settings: Kafka) -> str:
    """The SASL password from its file (never from the command line); empty without SASL.

    Raises `ConfigError` when the file cannot be read.
    """
    if not settings.security_protocol.startswith("SASL"):
        return ""
    try:
        return Path(settings.sasl_password_file).read_text().strip()
    except OSError as error:
        raise ConfigError(f"kafka.sasl_password_file: {error}") from None


def confluent(settings: Kafka) -> dict[str, Any]:
    """The common part of a confluent-kafka client's configuration."""
    shared: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap,
        "security.protocol": settings.security_protocol,
        "socket.keepalive.enable": True,
        "log_level": 2,  # librdkafka's own lines bypass our logs; what matters comes back as errors
    }
    if settings.ssl_ca_file:
        shared["ssl.ca.location"] = settings.ssl_ca_file
    if settings.security_protocol.startswith("SASL"):
        shared |= {
            "sasl.mechanism": settings.sasl_mechanism,
            "sasl.username": settings.sasl_username,
            "sasl.password": password(settings),
        }
    return shared


def faust_credentials(settings: Kafka) -> Any:
    """The same for Faust's consumer; None on a plain connection."""
    context = None
    if settings.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=settings.ssl_ca_file or None)
    if settings.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=settings.sasl_username,
            password=password(settings),
            mechanism=settings.sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context else None
