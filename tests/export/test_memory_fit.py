"""The sums are those of the contract, and so are the cards they fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.export.memory_fit import BITS, GIB, WAYS, Memory
from antiphon.export.reference.config import LMConfig
from benchmarks.layout import REAL

ON_CARD, HOST, HOST_KV8 = WAYS
PUBLISHED = Memory(
    REAL.census("lm"),
    LMConfig.from_json(REAL.lm_config()),
    343_119_360 + 120_724_464 + 20_821_295,
)


@pytest.mark.parametrize(
    ("weights", "way", "lm", "totals"),
    [  # contract I, "Memory on the GPU", the lines with a 16-bit codec
        ("bf16", HOST, 15.78, (18.2, 18.5, 19.5)),
        ("int8", ON_CARD, 9.00, (11.4, 11.7, 12.7)),
        ("int8", HOST, 8.39, (10.8, 11.1, 12.1)),
        ("int8", HOST_KV8, 8.39, (10.7, 10.8, 11.3)),
        ("int4", ON_CARD, 5.41, (7.8, 8.1, 9.1)),
        ("int4", HOST, 4.79, (7.2, 7.5, 8.5)),
        ("int4", HOST_KV8, 4.79, (7.1, 7.2, 7.7)),
    ],
)
def test_memory_of_the_published_model(weights, way, lm, totals):
    found = PUBLISHED.lm_bytes(weights, host_embedding=way.host_embedding) / GIB
    assert found == pytest.approx(lm, abs=0.005)
    for rows, total in zip((2048, 4096, 10_240), totals, strict=True):
        # the contract adds parts that it has rounded
        assert PUBLISHED.total_bytes(weights, way, rows) / GIB == pytest.approx(total, abs=0.06)


def test_parts_of_the_published_model():
    assert PUBLISHED.row_bytes() == 163_840
    assert PUBLISHED.row_bytes(8) == 81_920
    assert PUBLISHED.lm_bytes("bf16") == 18_191_388_672


def test_cards_of_the_contract():
    """Contract I, "Fit"."""
    plain = ((10_240, ON_CARD),)
    tight = ((2048, HOST), (4096, HOST_KV8))
    table = PUBLISHED.table()
    found = {
        card: {name: tuple((f.rows, f.way) for f in fits) for name, fits in row.items()}
        for card, row in table.items()
    }
    assert found == {
        8: {"bf16": (), "int8": (), "int4": tight},
        12: {"bf16": (), "int8": tight, "int4": plain},
        16: {"bf16": (), "int8": plain, "int4": plain},
        24: {"bf16": plain, "int8": plain, "int4": plain},
    }


def test_a_model_of_short_context_is_offered_no_more():
    config = LMConfig.from_json(REAL.lm_config() | {"max_position_embeddings": 3000})
    memory = Memory(REAL.census("lm"), config, 0)
    assert [fit.rows for fit in memory.fits(16, "int4")] == [3000]


@given(st.integers(1, 40), st.sampled_from(sorted(BITS)))
def test_what_fits_is_within_the_card_and_the_next_step_is_not(card_gb, weights):
    usable = 0.92 * card_gb * GIB
    fits = PUBLISHED.fits(card_gb, weights)
    for fit in fits:
        assert PUBLISHED.total_bytes(weights, fit.way, fit.rows) <= usable
    assert [fit.rows for fit in fits] == sorted({fit.rows for fit in fits})
    more = {0: 2048, 2048: 4096, 4096: 10_240}.get(fits[-1].rows if fits else 0)
    assert more is None or PUBLISHED.total_bytes(weights, HOST_KV8, more) > usable
