"""Embedding tables written in blocks are what numpy would have written, and are read back."""

import numpy as np
import pytest

from antiphon.export import tables
from antiphon.export.matrix import as_rows
from antiphon.export.tables import save_table
from antiphon.quant.blocks import dequantize, quantize
from antiphon.quant.schemes import FP16, FP32, INT8_ROW
from antiphon.runtime.bundle_files import read_table
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.manifest import FileEntry, TableEntry

TABLE = np.random.default_rng(4).standard_normal((103, 24)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(tables, "BLOCK_VALUES", 24 * 10)


@pytest.mark.parametrize("scheme", [FP32, FP16], ids=lambda s: s.name)
def test_floats_are_what_numpy_saves(scheme, tmp_path):
    (path,) = save_table(as_rows(TABLE), scheme, tmp_path / "t.npy")
    np.save(tmp_path / "exact.npy", TABLE if scheme is FP32 else TABLE.astype(np.float16))
    assert path.read_bytes() == (tmp_path / "exact.npy").read_bytes()


def test_codes_are_read_back_with_their_scales(tmp_path):
    paths = save_table(as_rows(TABLE), INT8_ROW, tmp_path / "t.npy")
    rows, scales = (FileEntry(file=p.name, sha256="0" * 64, size_bytes=1) for p in paths)
    table = read_table(tmp_path, TableEntry(rows=rows, scales=scales), rows=103, hidden_size=24)
    ids = np.array([102, 0, 57, 57])
    exact = dequantize(quantize(TABLE, INT8_ROW))[ids]
    np.testing.assert_allclose(table.gather(ids), exact, rtol=1e-6)
    assert [path.name for path in paths] == ["t.npy", "t_scales.npy"]


@pytest.mark.parametrize(("scheme", "value"), [(FP16, 1e5), (FP32, np.nan), (INT8_ROW, np.inf)])
def test_a_value_that_does_not_fit_is_named(scheme, value, tmp_path):
    table = TABLE.copy()
    table[42, 3] = value
    with pytest.raises(ConfigError, match=r"t: from row 40 on: .* not finite"):
        save_table(as_rows(table), scheme, tmp_path / "t.npy")
