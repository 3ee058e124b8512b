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
    if settings.security_protocol.endswith("SSL"):
        shared |= _tls(settings)
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
        context = _context(settings)
    if settings.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=settings.sasl_username,
            password=password(settings),
            mechanism=settings.sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context else None


def _tls(settings: Kafka) -> dict[str, Any]:
    _context(settings)  # librdkafka's word on a file that cannot be read names neither the file nor the setting
    shared = {"ssl.endpoint.identification.algorithm": "https"}  # its default, too: the certificate names the host
    if settings.ssl_ca_file:
        shared["ssl.ca.location"] = settings.ssl_ca_file
    if settings.ssl_certificate_file:
        shared["ssl.certificate.location"] = settings.ssl_certificate_file
        shared["ssl.key.location"] = settings.ssl_key_file or settings.ssl_certificate_file
    return shared


def _context(settings: Kafka) -> ssl.SSLContext:
    """Who is trusted, and our own certificate. Raises `ConfigError` naming the setting and its file."""
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_file or None)
    except OSError as error:
        raise ConfigError(f"kafka.ssl_ca_file {settings.ssl_ca_file}: {_reason(error)}") from None
    if settings.ssl_certificate_file:
        try:
            context.load_cert_chain(settings.ssl_certificate_file, settings.ssl_key_file or None, password=_no_password)
        except OSError as error:
            files = f"{settings.ssl_certificate_file}, kafka.ssl_key_file {settings.ssl_key_file or 'the same'}"
            raise ConfigError(f"kafka.ssl_certificate_file {files}: {_reason(error)}") from None
    return context


def _no_password() -> str:
    """Instead of a prompt on the terminal, which a worker would wait at for ever."""
    raise ConfigError("kafka.ssl_key_file is encrypted: the key is to lie plain in a file that only the worker reads")


def _reason(error: OSError) -> str:
    return "no certificate or key in it that can be read" if isinstance(error, ssl.SSLError) else str(error.strerror)
