from io import BytesIO

import pytest

from recommender.model.boosting import Round
from recommender.model.manifest import Importance

pytest.importorskip("matplotlib", reason="the extra `train` is not installed")

from PIL import Image

from recommender.model.picture import report_png


def drawn(rounds, columns, trees):
    picture = Image.open(BytesIO(report_png(rounds, columns, trees=trees, lists=9, title="v1")))
    picture.load()
    return picture


def columns(count):
    return [
        Importance(f"item_clickout_item_count_{number}", float(count - number), number + 1) for number in range(count)
    ]


@pytest.mark.parametrize(("trees", "count"), [(1, 1), (3, 5), (40, 60)])
def test_a_picture_is_drawn_whatever_there_is_to_show(trees, count):
    rounds = [Round(tree, 0.5 + tree / 100, 0.5 + tree / 200) for tree in range(1, trees + 1)]
    picture = drawn(rounds, columns(count), trees)
    assert picture.format == "PNG"
    assert min(picture.size) > 500
    assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_the_curve_and_the_columns_are_in_it():
    """Each side changes when what it shows changes, and only that side."""
    rounds = [Round(tree, 0.6, 0.5) for tree in range(1, 11)]
    risen = [Round(tree, 0.6, 0.5 + tree / 100) for tree in range(1, 11)]
    before, curve, bars = drawn(rounds, columns(5), 10), drawn(risen, columns(5), 10), drawn(rounds, columns(4), 10)
    left, right = ((0, 100, 550, 600), (800, 100, 1400, 600))
    assert before.crop(left).tobytes() != curve.crop(left).tobytes()
    assert before.crop(right).tobytes() == curve.crop(right).tobytes()
    assert before.crop(right).tobytes() != bars.crop(right).tobytes()


def test_an_artefact_without_a_split_still_gets_its_picture():
    assert drawn([Round(1, 0.3, 0.3)], [], 1).size == drawn([Round(1, 0.3, 0.3)], columns(3), 1).size
