"""What a training run may choose: the section `[training]` of the configuration and the options of `headrace train`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec


class TrainingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a ranker is fitted. `deploy/worker.toml` says what each means; `recommender.model.fitting` uses them.

    budget_ms: what scoring 500 rows on one thread may cost; it bounds the trees by their leaves.
    monotone: {pattern of column names: 1 or -1}: the score never falls (never rises) as the column grows.
    """

    trees_max: Annotated[int, msgspec.Meta(ge=1, le=2_000)] = 200
    leaves: Annotated[int, msgspec.Meta(ge=2, le=255)] = 15
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.03
    search: Annotated[int, msgspec.Meta(ge=0, le=64)] = 2
    budget_ms: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 20.0
    validation_share: Annotated[float, msgspec.Meta(ge=0.05, le=0.5)] = 0.2
    patience: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 50
    monotone: dict[str, Literal[-1, 1]] = {}
    position_bias: bool = False
    position_bias_regularization: Annotated[float, msgspec.Meta(ge=0, le=1_000)] = 0.0
    seed: Annotated[int, msgspec.Meta(ge=0, le=2_147_483_647)] = 20_240_229
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
