"""Schemes are found by name and fit themselves to a matrix."""

import pytest

from antiphon.quant.schemes import FP8, FP32, INT4_B32, INT8, INT8_ROW, SCHEMES, QuantError, scheme


def test_names_are_keys():
    assert {name: s.name for name, s in SCHEMES.items()} == {name: name for name in SCHEMES}
    assert scheme("int8") is INT8


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(QuantError, match=r"unknown scheme 'q4_k'.*int4_b32"):
        scheme("q4_k")


def test_floats_have_no_codes():
    assert (INT8.limit, INT4_B32.limit, FP32.quantized) == (127, 7, False)
    with pytest.raises(QuantError, match="fp32 has no codes"):
        _ = FP32.limit


@pytest.mark.parametrize(
    ("inputs", "block"), [(256, 128), (192, 64), (80, 16), (16, 16), (10, 0), (129, 0)]
)
def test_blocks_shrink_until_they_divide(inputs, block):
    fitted = INT8.fit(inputs)
    assert (fitted.block_size, fitted.name) == (block, "int8")
    assert fitted.blocks(inputs) == (inputs // block if block else 1)


def test_a_block_that_does_not_divide_is_refused_with_one_that_does():
    assert INT8.groups(256) == (2, 128)
    assert INT8_ROW.groups(7) == (1, 7)
    with pytest.raises(QuantError, match="128 does not divide 192 inputs; blocks of 64 would do"):
        INT8.groups(192)
    with pytest.raises(QuantError, match="32 does not divide 10 inputs; one scale per output"):
        INT4_B32.groups(10)


def test_four_bits_have_one_more_code_below_zero():
    assert (INT4_B32.lowest, INT4_B32.limit) == (-8, 7)
    assert (INT8.lowest, FP8.lowest, FP8.limit) == (-127, -448, 448)


def test_one_scale_per_output_fits_everything():
    assert INT8_ROW.fit(7) is not None
    assert INT8_ROW.fit(7).blocks(7) == 1
