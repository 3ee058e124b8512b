"""Why an item stands where it does: the top contributions to its score in human words, additive to the score.

A feature and its list-relative forms (rank, z-score, ratios) speak as one reason, whose contribution is their sum:
"clicked about 0.12 times per impression so far, 2.1 standard deviations above this list".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.scene import Floats
from features.schema import Reason
from recommender.phrases import FORMS, Phrase, phrase, relation

ADDITIVE = 1e-6  # of the sum of all contributions' magnitudes; measured: 1e-14


class Explained(NamedTuple):
    """One item's reasons, and `rest`: the model's base and every other contribution. Reasons + rest = score."""

    reasons: list[Reason]
    rest: float


class Subject(NamedTuple):
    """A feature with its list-relative forms: columns, first the feature itself, and the forms of the others.

    tells: whether it speaks of the item. What is the same for every candidate (the user's habits, the hour) moves scores,
    too, but is no reason for this item rather than that one: it stays in `rest`.
    """

    say: Phrase
    columns: list[int]
    forms: list[str]
    tells: bool


class Explainer:
    """The words of one catalogue's features. `names` in column order, `categorical` the columns that hold codes."""

    def __init__(self, names: Sequence[str], categorical: Sequence[int] = ()) -> None:
        self.subjects = subjects(names, categorical)
        self._of = np.empty(len(names), np.intp)
        for place, subject in enumerate(self.subjects):
            self._of[subject.columns] = place
        self._tells = np.array([subject.tells for subject in self.subjects], np.bool_)

    def explain(
        self, matrix: Floats, contributions: NDArray[np.float64], scores: NDArray[np.float64], *, top: int
    ) -> list[Explained | None]:
        """The `top` reasons of each row; None for a row whose contributions do not add up to its score.

        matrix float32[n, features], contributions float64[n, features + 1] (the model's base last), scores float64[n].
        First come those that speak for the item, the strongest first; where there are too few of them, those that
        speak against it, the strongest first. What contributes nothing is no reason.
        """
        total = contributions.sum(axis=1)
        additive = np.abs(total - scores) <= ADDITIVE * np.abs(contributions).sum(axis=1)
        summed = np.zeros((len(matrix), len(self.subjects)))
        np.add.at(summed.T, self._of, contributions[:, :-1].T)
        order = strongest(summed * self._tells)[:, :top]
        return [
            self._explained(matrix[row], contributions[row], summed[row], order[row]) if additive[row] else None
            for row in range(len(matrix))
        ]

    def _explained(
        self, row: Floats, contributions: NDArray[np.float64], summed: NDArray[np.float64], order: NDArray[np.intp]
    ) -> Explained:
        told = order[(summed[order] != 0) & self._tells[order]]
        reasons = [Reason(self._text(self.subjects[place], row, contributions), float(summed[place])) for place in told]
        rest = contributions[-1] + summed.sum() - summed[told].sum()
        return Explained(reasons, float(rest))

    def _text(self, subject: Subject, row: Floats, contributions: NDArray[np.float64]) -> str:
        """The feature's phrase, with the form that weighs most where one weighs anything."""
        first, *others = subject.columns
        text = subject.say(float(row[first]))
        said = [
            (abs(contributions[column]), relation(form, float(row[column])))
            for form, column in zip(subject.forms, others, strict=True)
            if contributions[column] and not math.isnan(row[column])
        ]
        return f"{text}, {max(said)[1]}" if said else text


def subjects(names: Sequence[str], categorical: Sequence[int] = ()) -> list[Subject]:
    """The features of a catalogue, each with its list-relative forms, in column order.

    `x_rank` is a form only where `x` is a feature: an attribute may be called `page_rank`.

    >>> [(each.columns, each.forms) for each in subjects(["price", "page_rank", "price_rank"])]
    [([0, 2], ['rank']), ([1], [])]
    """
    found: dict[str, Subject] = {}
    for column, name in enumerate(names):
        base, form = next(
            ((base, form) for form in FORMS if (base := name.removesuffix(f"_{form}")) != name and base in found),
            (name, ""),
        )
        if form:
            found[base].columns.append(column)
            found[base].forms.append(form)
        else:
            found[name] = Subject(phrase(name, is_category=column in categorical), [column], [], tells_of_item(name))
    return list(found.values())


def tells_of_item(name: str) -> bool:
    """Whether a column may differ between the candidates of one question.

    >>> [tells_of_item(name) for name in ("item_age_s", "user_item_bought", "user_sessions", "now_hour", "context_city")]
    [True, True, False, False, False]
    """
    return name.startswith("user_item_") or not name.startswith(("user_", "now_", "context_"))


def strongest(contributions: NDArray[np.float64]) -> NDArray[np.intp]:
    """intp[n, features]: places by strength: what adds to the score, the most first, then what takes away, likewise.

    >>> strongest(np.array([[0.1, -0.5, 0.0, 0.3, -0.2]])).tolist()
    [[3, 0, 1, 4, 2]]
    """
    kind = np.where(contributions > 0, 0.0, np.where(contributions < 0, 1.0, 2.0))
    return np.lexsort((-np.abs(contributions), kind), axis=1)
