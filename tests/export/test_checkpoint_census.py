"""Every published tensor is needed and read, and any that is wrong is named."""

from collections import Counter

import lookalike
import pytest

from antiphon.export.checkpoint import Checkpoint, check_tensors, expected_shapes
from antiphon.export.pipeline import export
from antiphon.export.reference.config import FlowConfig, HiftConfig, LMConfig, TokenizerConfig
from antiphon.export.tensor_files import OpenFile, Stored, TensorFile
from antiphon.export.tensor_sizes import flow_config, hift_config
from antiphon.runtime.errors import CorruptFile
from benchmarks.layout import CENSUS, REAL, SMALL, Sizes
from benchmarks.lookalike import make

CONFIGS = {
    "lm": LMConfig.from_json(REAL.lm_config()),
    "tokenizer": TokenizerConfig.from_json(REAL.codec_config()),
    "flow": FlowConfig(),
    "hift": HiftConfig(),
}
KEYS = pytest.mark.parametrize("key", CONFIGS)


@pytest.fixture(scope="module")
def some_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("some") / "file"
    path.touch()
    return OpenFile(path)


@pytest.fixture
def stored(some_file):
    """What one file holds, by the census: entries of a header, no data."""

    def make(key):
        dtype = CENSUS[key]["dtype"]
        shapes = REAL.census(key)
        return {name: Stored(some_file, dtype, shape, 0) for name, shape in shapes.items()}

    return make


def refused(key, file):
    with pytest.raises(CorruptFile) as caught:
        check_tensors(key, file, CONFIGS[key])
    assert str(file.path) in str(caught.value)
    return str(caught.value)


@KEYS
def test_every_name_is_used_once_and_none_is_missing(key, stored, some_file):
    file = TensorFile(some_file.path, stored(key))
    check_tensors(key, file, CONFIGS[key])
    assert expected_shapes(CONFIGS[key]) == file.shapes == lookalike.census(key)


def test_an_export_reads_every_name_once_and_no_other(tmp_path, monkeypatch):
    make(tmp_path / "in", Sizes(SMALL), voice=True)  # narrow, but with every published name
    rows_read, read, read_rows = Counter(), Checkpoint.read, Checkpoint.read_rows

    def counted(self, key, name):
        rows_read[key, name] += (*self.shapes(key)[name], 1)[0]
        return read(self, key, name)

    def counted_rows(self, key, name, start, stop):
        rows_read[key, name] += stop - start
        return read_rows(self, key, name, start, stop)

    monkeypatch.setattr(Checkpoint, "read", counted)
    monkeypatch.setattr(Checkpoint, "read_rows", counted_rows)
    export(tmp_path / "in", tmp_path / "out", noise_frames=200, parity=False)
    census = {
        (key, name): shape for key in CONFIGS for name, shape in Sizes(SMALL).census(key).items()
    }
    assert {name for _, name in census} == {name for key in CONFIGS for name in REAL.census(key)}
    assert rows_read == {name: (*shape, 1)[0] for name, shape in census.items()}


def test_sizes_of_the_codec_come_from_the_shapes(stored, some_file):
    flow, hift = (TensorFile(some_file.path, stored(key)) for key in ("flow", "hift"))
    assert flow_config(flow, 5) == FlowConfig()
    assert hift_config(hift) == HiftConfig()


@KEYS
def test_every_missing_tensor_is_named(key, stored, some_file):
    tensors = stored(key)
    for name in REAL.census(key):
        rest = {other: entry for other, entry in tensors.items() if other != name}
        assert f": {name} missing" in refused(key, TensorFile(some_file.path, rest))


@KEYS
def test_every_wrong_shape_is_named(key, stored, some_file):
    tensors = stored(key)
    for name, shape in REAL.census(key).items():
        wrong = Stored(some_file, "F32", (*shape[:-1], shape[-1] + 1), 0)
        message = refused(key, TensorFile(some_file.path, tensors | {name: wrong}))
        assert f": {name} is {list(wrong.shape)}, expected {list(shape)}" in message


@KEYS
def test_every_wrong_type_is_named(key, stored, some_file):
    tensors = stored(key)
    for name, shape in REAL.census(key).items():
        wrong = Stored(some_file, "F8_E4M3", shape, 0)
        message = refused(key, TensorFile(some_file.path, tensors | {name: wrong}))
        assert f": {name} is F8_E4M3, expected F64, F32, F16 or BF16" in message


@KEYS
def test_only_the_tokenizers_file_may_hold_more(key, stored, some_file):
    """It seems to hold a whole Whisper besides (contract D.2)."""
    extra = {"encoder.layers.16.fc1.weight": Stored(some_file, "F32", (3,), 0)}
    file = TensorFile(some_file.path, stored(key) | extra)
    if key == "tokenizer":
        check_tensors(key, file, CONFIGS[key])
    else:
        assert "layers.16.fc1.weight not expected" in refused(key, file)
