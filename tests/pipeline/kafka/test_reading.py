"""A plain reader of whole topics: a broker that goes away in the middle is an error, not a wait without end."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline.config import Kafka
from pipeline.kafka import reading
from pipeline.kafka.reading import Reader


class Silent:
    """Hands nothing out; its broker does not answer, or has nothing new for a while."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def assign(self, parts):
        pass

    def consume(self, count, timeout):
        return []

    def get_watermark_offsets(self, part, timeout):
        self.asked.append(part.partition)
        if not self.answers:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        self.answers -= 1
        return 0, 5


def test_a_broker_that_went_away_in_the_middle_of_a_read_is_told(monkeypatch):
    monkeypatch.setattr(reading, "SILENT_S", 0.0)
    with Reader(Kafka(bootstrap="127.0.0.1:1")) as reader:
        real, reader._consumer = reader._consumer, Silent(answers=3)
        real.close()
        reader._consumer.close = lambda: None
        with pytest.raises(KafkaException, match="_TRANSPORT"):
            list(reader.to_end("t", {0: 0, 1: 0}))
        assert sorted(reader._consumer.asked) == [0, 0, 1, 1]
