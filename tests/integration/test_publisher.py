"""The publisher on a real broker: a batch is sent when the broker has it, waits while it is away, refuses by name."""

import asyncio
import os
import signal

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline.config import Kafka
from pipeline.kafka.publisher import Outgoing, Publisher

pytestmark = pytest.mark.services


def topic(bootstrap, name):
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(10)
    return name


def read(bootstrap, name, count):
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "p", "log_level": 0, "fetch.wait.max.ms": 10})
    reader.assign([TopicPartition(name, 0, 0)])
    found = []
    for _ in range(150):
        found += [message for message in reader.consume(1000, timeout=0.2) if message.error() is None]
        if len(found) >= count:
            break
    reader.close()
    return found


async def test_what_was_sent_is_there_in_order_with_its_headers(broker):
    name, refused = topic(broker, "publisher_order"), []
    publisher = Publisher(Kafka(bootstrap=broker), on_trouble=lambda cause: None, on_refused=refused.append)
    await publisher.send([Outgoing(name, b"k", b"%d" % n, [("h", b"x")]) for n in range(2000)])
    await publisher.send([])
    publisher.close()
    found = read(broker, name, 2000)
    assert [message.value() for message in found] == [b"%d" % n for n in range(2000)]
    assert found[0].headers() == [("h", b"x")]
    assert refused == []


async def test_a_record_too_large_is_given_up_by_name_and_the_rest_goes_out(broker):
    name, refused = topic(broker, "publisher_large"), []
    settings = Kafka(bootstrap=broker, message_max_bytes=100_000)
    publisher = Publisher(settings, on_trouble=lambda cause: None, on_refused=refused.append)
    await publisher.send([Outgoing(name, None, b"a"), Outgoing(name, None, b"x" * 200_000), Outgoing(name, None, b"b")])
    publisher.close()
    assert [message.value() for message in read(broker, name, 2)] == [b"a", b"b"]
    assert refused == [name]


async def test_a_broker_that_stands_still_is_waited_for_with_a_cause(own_servers):
    servers = own_servers(redis=False)
    name, causes = topic(servers.bootstrap, "still"), []
    settings = Kafka(bootstrap=servers.bootstrap)
    publisher = Publisher(settings, on_trouble=causes.append, on_refused=lambda topic: None)
    await publisher.send([Outgoing(name, None, b"a")])
    os.kill(servers.pids["broker"], signal.SIGSTOP)
    await asyncio.sleep(0.2)  # until every thread of the broker has stopped
    sending = asyncio.create_task(publisher.send([Outgoing(name, None, b"b")]))
    await asyncio.sleep(2.7)
    assert not sending.done()
    os.kill(servers.pids["broker"], signal.SIGCONT)
    await asyncio.wait_for(sending, 60)
    publisher.close()
    assert causes == ["broker: no acknowledgement for 2 s", None]
    assert b"b" in [message.value() for message in read(servers.bootstrap, name, 2)]
