import shutil
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommender.model.artefact import ModelRefused, load, read_manifest
from recommender.model.registry import LOADED_MAX, LOOKS, Registry, versions


@dataclass(frozen=True)
class Toy:
    """A ranker that only has a name."""

    version: str


@pytest.fixture
def put(trained, tmp_path):
    """Puts a copy of the trained model into the registry under a name of its own."""

    def copy(version):
        path = shutil.copytree(trained.path, tmp_path / version)
        renamed = msgspec.structs.replace(read_manifest(path), version=version)
        (path / "manifest.json").write_bytes(msgspec.json.encode(renamed))
        return path

    return copy


@pytest.fixture
def opened():
    """The folders that were opened, in order."""
    return []


@pytest.fixture
def registry(tmp_path, columns, opened):
    """Opens artefacts without the latency check, and notes it."""
    return Registry(tmp_path, lambda path: opened.append(path.name) or load(path, columns))


def serve(registry, version):
    registry.want(version)
    registry.refresh()
    assert registry.current().version == version


def test_without_a_word_from_the_operator_nothing_serves_however_good_it_is(registry, put):
    put("v1")
    assert registry.refresh() is False
    assert registry.current() is None
    assert registry.cause == "no model"


def test_the_named_version_serves_and_not_the_newest(registry, put):
    put("v1")
    put("v2")
    registry.want("v1")
    assert registry.refresh() is True
    assert registry.current().version == "v1"
    assert registry.cause is None
    assert registry.refresh() is False


def test_a_half_written_version_or_a_file_beside_them_is_no_version(put, tmp_path):
    for version in ("v1", "v2"):
        put(version)
    (tmp_path / ".v3.77").mkdir()
    (tmp_path / "promotions.jsonl").write_text("")
    assert versions(tmp_path) == ["v2", "v1"]


def test_a_refused_version_never_unseats_the_serving_one_and_the_cause_says_why(registry, put):
    put("v1")
    serve(registry, "v1")
    serving = registry.current()
    (put("v2") / "model.txt").write_bytes(b"")
    registry.want("v2")
    assert registry.refresh() is False
    assert registry.current() is serving
    assert registry.cause == "model refused: v2: model.txt: sha256 differs from the manifest's: damaged or replaced"
    assert registry.serving.refused == 1


def test_a_version_that_is_not_there_is_waited_for(registry, put, tmp_path, opened):
    registry.want("v1")
    assert registry.refresh() is False
    assert registry.cause == f"model v1 is not in {tmp_path}"
    assert opened == []
    put("v1")
    assert registry.refresh() is True
    assert registry.cause is None


def test_a_refused_version_is_tried_again_only_when_its_files_changed(registry, put, opened):
    path = put("v1")
    good = (path / "model.txt").read_bytes()
    (path / "model.txt").write_bytes(b"")
    registry.want("v1")
    registry.refresh()
    registry.refresh()
    assert opened == ["v1"]
    assert registry.current() is None
    (path / "model.txt").write_bytes(good)
    assert registry.refresh() is True
    assert opened == ["v1", "v1"]


def test_a_refused_version_is_tried_again_after_many_looks_since_a_busy_machine_proves_nothing(tmp_path):
    (tmp_path / "v1").mkdir()
    tries = []

    def open_model(path):
        tries.append(path.name)
        if len(tries) == 1:
            raise OSError("cannot allocate memory")
        return Toy(path.name)

    registry = Registry(tmp_path, open_model)
    registry.want("v1")
    assert not registry.refresh()
    assert not any(registry.refresh() for _ in range(LOOKS - 1))
    assert tries == ["v1"]
    assert registry.refresh()
    assert (tries, registry.current(), registry.cause) == (["v1", "v1"], Toy("v1"), None)


def test_a_refused_version_is_tried_again_when_it_is_named_anew(registry, put, opened):
    (put("v1") / "model.txt").unlink()
    for _ in range(2):
        registry.want("v1")
        registry.refresh()
        registry.refresh()
    assert opened == ["v1", "v1"]
    assert registry.serving.refused == 2


def test_going_back_to_the_version_before_takes_no_load(registry, put, opened):
    for version in ("v1", "v2"):
        put(version)
        serve(registry, version)
    serve(registry, "v1")
    assert opened == ["v1", "v2"]


def test_a_version_whose_files_changed_since_is_loaded_and_checked_again(registry, put):
    first = put("v1")
    put("v2")
    serve(registry, "v1")
    serve(registry, "v2")
    (first / "model.txt").write_bytes(b"altered")
    registry.want("v1")
    assert registry.refresh() is False
    assert registry.current().version == "v2"


def test_naming_no_version_leaves_the_seat_empty(registry, put):
    put("v1")
    serve(registry, "v1")
    registry.want(None)
    assert registry.refresh() is True
    assert registry.current() is None
    assert registry.cause == "no model"


def test_the_shadow_has_a_seat_of_its_own(registry, put, opened):
    put("v1")
    put("v2")
    serve(registry, "v1")
    registry.want_shadow("v2")
    assert registry.refresh() is True
    assert (registry.current().version, registry.shadow().version) == ("v1", "v2")
    serve(registry, "v2")
    assert opened == ["v1", "v2"]
    registry.want_shadow("absent")
    assert registry.refresh() is False
    assert registry.shadow().version == "v2"
    assert registry.cause is None
    registry.want_shadow(None)
    assert registry.refresh() is True
    assert registry.shadow() is None


def test_a_version_under_another_name_than_its_manifest_s_is_refused(registry, put, tmp_path):
    put("v1").rename(tmp_path / "v2")
    registry.want("v2")
    assert registry.refresh() is False
    assert registry.cause == "model refused: v2: its manifest calls it 'v1'"


def test_an_error_that_nobody_thought_of_is_a_refusal_too(tmp_path):
    (tmp_path / "v1").mkdir()

    def open_model(path):
        raise RecursionError("too deep")

    registry = Registry(tmp_path, open_model)
    registry.want("v1")
    assert registry.refresh() is False
    assert registry.cause == "model refused: v1: RecursionError: too deep"


@pytest.mark.parametrize(
    "version", ["../v1", "..", "/etc/passwd", "a/b", "a\\b", "", ".v1", "-f", "none", "x" * 129, "v1\n"]
)
def test_a_name_that_is_no_plain_part_of_a_path_is_refused(registry, version):
    with pytest.raises(ModelRefused, match="version"):
        registry.want(version)
    with pytest.raises(ModelRefused, match="version"):
        registry.want_shadow(version)


NAMES = st.sampled_from(["good1", "good2", "good3", "good4", "good5", "bad", "absent", None])


@given(wishes=st.lists(st.tuples(st.booleans(), NAMES), max_size=30))
def test_whatever_is_named_only_good_versions_that_were_named_sit_and_few_are_held(tmp_path_factory, wishes):
    place = tmp_path_factory.mktemp("models")
    for version in ("good1", "good2", "good3", "good4", "good5", "bad"):
        (place / version).mkdir()

    def open_model(path):
        if path.name == "bad":
            raise ModelRefused("bad")
        return Toy(path.name)

    registry, expected = Registry(place, open_model), {True: None, False: None}
    for is_shadow, version in wishes:
        (registry.want_shadow if is_shadow else registry.want)(version)
        registry.refresh()
        if version is None or version.startswith("good"):
            expected[is_shadow] = version
        for shadow, ranker in ((False, registry.current()), (True, registry.shadow())):
            assert (ranker and ranker.version) == expected[shadow]
        assert len(registry._loaded) <= LOADED_MAX
