"""Why the broker does not let us in, in one line, before anybody waits for it: credentials, certificates, rights.

A client library tries again for ever and calls all of this "transport failure". What it says aside, to its error
callback, is listened to here.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from features.schema import DEAD_LETTERS, INPUT_TOPICS, MODEL_CONTROL, RECOMMENDATIONS, SERVED_FEATURES
from pipeline.config import ConfigError, Kafka
from pipeline.kafka.clients import confluent
from pipeline.kafka.topics import GRACE_S, missing

ANSWER_S = 5.0
ASK_S = 0.5
SECOND_WORD_S = 1.5  # of several brokers another may answer yet
RIGHTS = "deploy/kafka/acls.sh grants the rights"
# What waiting does not mend: the settings, or what the broker knows of us, must change.
OURS = {KafkaError._AUTHENTICATION, KafkaError._SSL}


class Refusal(NamedTuple):
    """What keeps us out. `is_ours`: waiting will not mend it."""

    said: str
    is_ours: bool


def refusal(settings: Kafka, *, within_s: float = ANSWER_S) -> Refusal | None:
    """What keeps a client with these settings out; None: the broker answers. Raises `ConfigError`."""
    heard: list[KafkaError] = []
    client = AdminClient(confluent(settings) | {"error_cb": heard.append})
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        try:
            client.list_topics(timeout=ASK_S)
        except KafkaException:
            client.poll(0)  # serves the callback
        else:
            return None
        if any(error.code() in OURS for error in heard):
            until_s = min(until_s, time.monotonic() + SECOND_WORD_S)
    return _refusal(settings, [error for error in heard if error.code() != KafkaError._ALL_BROKERS_DOWN], within_s)


def reach(settings: Kafka, topics: Sequence[str] = ()) -> None:
    """For commands: returns when the broker answers and has the topics, so that it makes none with settings of its own.

    Raises `ConfigError` that says why it does not, or what it lacks.
    """
    if found := refusal(settings):
        raise ConfigError(found.said)
    if absent := missing(AdminClient(confluent(settings)), topics):
        raise ConfigError(f"the broker has no {', '.join(absent)} (`headrace topics create` makes them)")


def admit(settings: Kafka) -> None:
    """For the worker, before it starts: raises `ConfigError` where waiting would not help. A broker away is waited for."""
    found = refusal(settings)
    if found is None and (lacking := missing_rights(settings)):
        raise ConfigError(f"the broker does not allow {'; '.join(lacking)} ({RIGHTS})")
    if found is not None and found.is_ours:
        raise ConfigError(found.said)


def needed_rights(prefix: str) -> Mapping[str, AclOperation]:
    """What a worker does with each topic."""
    reads = (*INPUT_TOPICS, MODEL_CONTROL)
    writes = (RECOMMENDATIONS, SERVED_FEATURES, DEAD_LETTERS)
    return {prefix + topic: AclOperation.READ for topic in reads} | {
        prefix + topic: AclOperation.WRITE for topic in writes
    }


def missing_rights(settings: Kafka) -> list[str]:
    """What a worker needs and this user lacks, in words; a topic that is not there yet is nobody's fault.

    Raises `KafkaException` when the broker does not answer.
    """
    client = AdminClient(confluent(settings))
    needed = needed_rights(settings.topic_prefix)
    topics = client.describe_topics(
        TopicCollection(list(needed)), include_authorized_operations=True, request_timeout=ANSWER_S
    )
    lacking = []
    for topic, answer in topics.items():
        try:
            allowed = answer.result(ANSWER_S + GRACE_S).authorized_operations
        except TimeoutError:
            continue
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                continue
            allowed = []
        if allowed is not None and needed[topic] not in allowed:  # None: the broker does not tell
            lacking.append(f"{_who(settings)} to {needed[topic].name} the topic {topic}")
    return lacking + _missing_group(client, settings)


def _missing_group(client: AdminClient, settings: Kafka) -> list[str]:
    asked = client.describe_consumer_groups(
        [settings.group], include_authorized_operations=True, request_timeout=ANSWER_S
    )
    try:
        allowed = asked[settings.group].result(ANSWER_S + GRACE_S).authorized_operations
    except TimeoutError:  # a coordinator that is away is waited for
        return []
    except KafkaException as error:
        if error.args[0].code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
            return []
        allowed = []
    if allowed is None or AclOperation.READ in allowed:
        return []
    return [f"{_who(settings)} to READ the group {settings.group}"]


def _who(settings: Kafka) -> str:
    if settings.security_protocol.startswith("SASL"):
        return f"the user {settings.sasl_username!r}"
    return "this certificate's name" if settings.ssl_certificate_file else "this client"


def _refusal(settings: Kafka, heard: list[KafkaError], within_s: float) -> Refusal:
    telling = [error for error in heard if error.code() in OURS] or heard
    if not telling:
        wrong = f"is it up, and is kafka.security_protocol {settings.security_protocol} right?"
        return Refusal(f"the broker: no answer from {settings.bootstrap} within {within_s:g} s: {wrong}", is_ours=False)
    error = telling[0]
    address, said = taken_apart(error.str())
    if error.code() == KafkaError._AUTHENTICATION:
        user = f"the user {settings.sasl_username!r} by {settings.sasl_mechanism}"
        return Refusal(f"the broker {address or settings.bootstrap} refuses {user}: {said}", is_ours=True)
    if error.code() == KafkaError._SSL:
        fault = certificate_fault(settings, address) or said
        mend = "kafka.ssl_ca_file names its authority, kafka.bootstrap the host as the certificate does"
        return Refusal(f"the broker {address or settings.bootstrap} is not trusted: {fault}: {mend}", is_ours=True)
    return Refusal(f"the broker {address or settings.bootstrap}: {said}", is_ours=False)


def taken_apart(said: str) -> tuple[str, str]:
    """(HOST:PORT, what is the matter) of a line of librdkafka's.

    >>> taken_apart("ssl://a.example:93/bootstrap: SSL handshake failed: no (after 5ms in state SSL_HANDSHAKE)")
    ('a.example:93', 'SSL handshake failed: no')
    """
    found = re.match(r"(?:\w+://)?(?P<address>\S+:\d+)/\w+: (?P<said>.*?)(?: \(after \d+ms in state \w+\))?$", said)
    return (found["address"], found["said"]) if found else ("", said)


def certificate_fault(settings: Kafka, address: str) -> str:
    """What Python's TLS holds against the broker's certificate (librdkafka says the same of each); "" if nothing."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=settings.ssl_ca_file or None)
    try:
        with (
            socket.create_connection((host, int(port)), timeout=ANSWER_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message)
    except (OSError, ValueError):
        return ""
