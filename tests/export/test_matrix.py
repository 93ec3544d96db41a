"""Matrices read by rows are stored like those in memory, whatever blocks, strips and threads."""

import errno
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.export import matrix
from antiphon.export.data_file import ALIGNMENT, DataFile
from antiphon.export.matrix import as_rows, coded, fits_half, floats
from antiphon.quant.blocks import pack_int4, quantize
from antiphon.quant.rounding import search
from antiphon.quant.schemes import INT4_B32, INT8, INT8_ROW, QuantError

RNG = np.random.default_rng(3)


@dataclass
class Recorded:
    """Rows that remember how they were read."""

    array: np.ndarray
    reads: list = field(default_factory=list)

    @property
    def shape(self):
        return self.array.shape

    def read(self, start, stop):
        self.reads.append((start, stop, threading.get_ident()))
        return self.array[start:stop].copy()


def joined(cells):
    """All strips side by side: what ends up in the file."""
    return np.concatenate([strip for _, strip in cells.strips()], axis=1)


@pytest.fixture
def small_steps(monkeypatch):
    """Blocks of a few rows, strips of a few blocks."""
    monkeypatch.setattr(matrix, "BLOCK_VALUES", 6 * 128)
    monkeypatch.setattr(matrix, "STRIP_BYTES", 128 * 20)


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("scheme", [INT8, INT8_ROW, INT4_B32], ids=lambda s: s.name)
@pytest.mark.parametrize("outputs", [2, 96, 130])
def test_codes_are_those_of_the_whole_matrix(outputs, scheme, jobs, small_steps):
    weight = RNG.standard_normal((outputs, 128)).astype(np.float32)
    cells, scales = coded(as_rows(weight), scheme, jobs=jobs)
    stored = joined(cells)
    codes, exact_scales = quantize(weight, scheme)
    exact = np.ascontiguousarray(codes.T)
    if scheme.bits == 4:
        exact = pack_int4(exact).reshape(128, -1)
    np.testing.assert_array_equal(stored, exact)
    np.testing.assert_array_equal(scales, exact_scales.T)
    assert stored.nbytes == cells.nbytes


def test_the_method_chooses_the_codes(small_steps):
    weight = RNG.standard_normal((64, 128)).astype(np.float32)
    cells, scales = coded(as_rows(weight), INT4_B32, "mse")
    codes, exact_scales = search(weight, INT4_B32)
    np.testing.assert_array_equal(joined(cells).reshape(-1), pack_int4(codes.T))
    np.testing.assert_array_equal(scales, exact_scales.T)


@given(outputs=st.integers(1, 70), inputs=st.integers(1, 40), jobs=st.integers(1, 3))
def test_floats_are_transposed(outputs, inputs, jobs):
    weight = RNG.standard_normal((outputs, inputs)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix, "BLOCK_VALUES", 100)
        patch.setattr(matrix, "STRIP_BYTES", 1000)
        for dtype in (np.float16, np.float32):
            stored = joined(floats(as_rows(weight), dtype, jobs))
            np.testing.assert_array_equal(stored, weight.T.astype(dtype))


def test_every_row_is_read_once_and_few_at_a_time(small_steps):
    rows = Recorded(RNG.standard_normal((96, 128)).astype(np.float32))
    joined(coded(rows, INT4_B32, jobs=3)[0])
    spans = sorted((start, stop) for start, stop, _ in rows.reads)
    assert spans == [(i, i + 6) for i in range(0, 96, 6)]
    assert threading.get_ident() not in {reader for *_, reader in rows.reads}


def test_an_error_in_a_thread_ends_it(small_steps):
    weight = np.ones((96, 128), np.float32)
    weight[50] = np.inf
    with pytest.raises(QuantError, match=r"from row 48 on: .* not finite"):
        joined(coded(as_rows(weight), INT8, jobs=2)[0])


def test_four_bits_need_an_even_number_of_outputs():
    with pytest.raises(QuantError, match="3 outputs, expected an even number for int4_b32"):
        coded(as_rows(np.ones((3, 32), np.float32)), INT4_B32)


def test_what_half_precision_holds_is_found_without_reading_more_than_needed(small_steps):
    weight = RNG.standard_normal((96, 128)).astype(np.float16).astype(np.float32)
    assert fits_half(as_rows(weight))
    weight[7, 0] += 1e-6
    rows = Recorded(weight)
    assert not fits_half(rows)
    assert [span[:2] for span in rows.reads] == [(0, 6), (6, 12)]
    weight[7, 0] = 1e6
    assert not fits_half(as_rows(weight))


def test_a_data_file_grows_by_aligned_ranges(tmp_path):
    file = DataFile(tmp_path / "x.data")
    assert file.append(np.arange(3, dtype=np.uint8)) == 0
    offset = file.reserve(12)
    assert file.append(np.array([9], np.uint8)) == 2 * ALIGNMENT
    file.write_rows(offset + 2, np.array([[1, 2], [3, 4], [5, 6]], np.uint8), 4)
    data = file.path.read_bytes()
    assert data[:3] == bytes([0, 1, 2])
    assert data[offset : offset + 12] == bytes([0, 0, 1, 2, 0, 0, 3, 4, 0, 0, 5, 6])
    assert len(data) == file.size == 2 * ALIGNMENT + 1


def test_a_full_disk_names_the_file():
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("no device that is always full")
    with pytest.raises(OSError, match="/dev/full") as caught:
        DataFile(full).append(np.zeros(8, np.uint8))
    assert caught.value.errno == errno.ENOSPC
