"""Records on model_control: what they name, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.schema import Refused
from pipeline.model_control import parse
from recommender.model.artefact import check_version


def record(**fields):
    return json.dumps({"model": "ranker", "version": "v1", "ts_ms": 5} | fields).encode()


def test_a_record_names_a_version_of_its_model():
    assert parse(b"ranker", record()) == ("ranker", "v1")
    assert parse(b"ranker.shadow", record(model="ranker.shadow", more=1)) == ("ranker.shadow", "v1")


@pytest.mark.parametrize("value", [None, record(version="none")])
def test_a_null_value_and_the_version_none_name_no_version(value):
    assert parse(b"ranker", value) == ("ranker", None)


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        (None, record(), "key"),
        (b"", record(), "key"),
        (b"\xff", record(), "key"),
        (b"x" * 300, None, "key"),
        (b"a\nb", None, "key"),
        (b"ranker", b"", r"\$"),
        (b"ranker", b"{", r"\$"),
        (b"ranker", b"[" * 100_000, r"\$"),
        (b"ranker", b'{"model":"ranker","version":"\xff","ts_ms":5}', r"\$"),
        (b"ranker", b'{"model":"ranker","ts_ms":5}', r"\$"),
        (b"ranker", record(version=1), r"\$"),
        (b"ranker", record(ts_ms=-1), r"\$"),
        (b"ranker", record(model="other"), "model"),
        *(
            (b"ranker", record(version=version), "version")
            for version in ("..", "a/b", "/etc", ".v", "a\\b", "v\u00e9", "-f")
        ),
    ],
)
def test_a_record_that_breaks_the_contract_is_refused_by_its_field(key, value, field):
    with pytest.raises(Refused, match=f"^{field}: "):
        parse(key, value)


@given(key=st.binary(max_size=40) | st.just(b"ranker"), value=st.binary(max_size=200))
def test_any_bytes_are_a_record_or_refused(key, value):
    try:
        _, version = parse(key, value)
    except Refused:
        return
    if version is not None:
        check_version(version)


@given(version=st.text(max_size=20))
def test_whatever_is_named_is_a_plain_part_of_a_path(version):
    try:
        _, named = parse(b"ranker", record(version=version))
    except Refused:
        return
    if named is not None:
        assert named == version
        assert not set(named) & set("/\\\0\n ")
        assert named[0] not in ".-"
