"""The settings that every Kafka client of the process shares, in each client library's own words."""

from __future__ import annotations

import ssl
from typing import Any

import faust

from pipeline.config import ConfigError, Kafka, secret

# For a client whose answers are small: at librdkafka's 60 s it believes in a half-open connection for a minute.
SMALL_ANSWERS = {"socket.timeout.ms": 5_000}


def password(settings: Kafka) -> str:
    """The SASL password from its variable or file (never from the command line); empty without SASL.

    Raises `ConfigError` where there is none, or the file cannot be read.
    """
    if not settings.security_protocol.startswith("SASL"):
        return ""
    found = secret("kafka.sasl_password", settings.sasl_password_file)
    if not found:
        raise ConfigError(
            f"{settings.security_protocol} needs kafka.sasl_password_file or HEADRACE_KAFKA_SASL_PASSWORD"
        )
    return found


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
