"""Dead letters read back: others may write to the topic."""

import pytest

from pipeline.refused_record import refused_record


class Message:
    def __init__(self, headers):
        self._headers = headers

    def headers(self):
        return self._headers

    def offset(self):
        return 3

    def key(self):
        return b"k"

    def value(self):
        return b"v"


def test_a_dead_letter_says_where_it_came_from():
    letter = refused_record(Message([("topic", b"items"), ("partition", b"2"), ("offset", b"70"), ("reason", b"r")]))
    assert (letter.topic, letter.source_partition, letter.source_offset, letter.reason) == ("items", 2, 70, "r")


@pytest.mark.parametrize("number", [b"", b"x", b"-1", b"\r", "٣".encode(), b"9" * 5_000, None])
def test_a_header_that_is_no_number_reads_as_none_was_there(number):
    letter = refused_record(Message([("partition", number), ("offset", number)]))
    assert (letter.source_partition, letter.source_offset) == (0, 0)


def test_no_headers_read_as_empty():
    assert refused_record(Message(None)).reason == ""
