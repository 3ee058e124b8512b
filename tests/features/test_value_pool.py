import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.affinity import inverse_document_frequency
from features.value_pool import ValuePool

ROWS = 4
PUTS = st.lists(
    st.tuples(st.integers(0, ROWS - 1), st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=4)), max_size=30
)


@given(PUTS, st.integers(1, 3))
def test_rows_are_those_of_the_last_puts(puts, room):
    pool = ValuePool(room=room)
    pool.grow(ROWS)
    held = {row: [] for row in range(ROWS)}
    for row, values in puts:
        pool.put(row, values)
        held[row] = values
    column = pool.column(np.arange(ROWS)[::-1])
    for place, row in enumerate(reversed(range(ROWS))):
        codes = column.codes[column.start[place] : column.start[place + 1]]
        assert [pool.values[code] for code in codes] == held[row]


@given(PUTS, PUTS, st.integers(1, 3))
def test_frequencies_are_of_the_documents_counted_and_rows_do_not_matter(puts, documents, room):
    pool = ValuePool(room=room)
    pool.grow(ROWS)
    for (row, values), (_, counted) in zip(puts, documents, strict=False):
        pool.put(row, values)
        pool.count(counted, documents=1)
        pool.idf(documents=9)
    taken = list(zip(puts, documents, strict=False))
    for _, (_, counted) in taken[::2]:
        pool.count(counted, documents=-1)
    left = [counted for _, (_, counted) in taken[1::2]]
    frequencies = np.array([sum(value in counted for counted in left) for value in pool.values], np.int64)
    np.testing.assert_array_equal(pool.idf(documents=9), inverse_document_frequency(frequencies, documents=9))
