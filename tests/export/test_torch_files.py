"""Files of torch.save: read as PyTorch reads them, and never executed."""

import contextlib
import io
import pickle
import pickletools
import warnings
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antiphon.export import torch_files
from antiphon.export.torch_files import open_torch
from antiphon.runtime.errors import CorruptFile

LAYOUTS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "row"])


def save(path, state, *, zipped=True):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
    return path


def refused(path):
    with pytest.raises(CorruptFile) as caught:
        open_torch(path)
    message = str(caught.value)
    assert str(path) in message
    assert "weights_only" not in message  # no advice to switch the protection off
    return message


def same(path, state):
    file = open_torch(path)
    assert set(file.shapes) == set(state)
    for name, tensor in state.items():
        assert file.shapes[name] == tuple(tensor.shape)
        np.testing.assert_array_equal(file.read(name), tensor.detach().float().numpy())


@LAYOUTS
def test_everything_a_state_dict_may_hold(tmp_path, zipped):
    base = torch.arange(60.0)
    state = OrderedDict(
        plain=torch.randn(3, 4),
        half=torch.randn(5).half(),
        brain=torch.randn(2, 3).bfloat16(),
        single=torch.tensor(3.0),
        nothing=torch.zeros(0, 4),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
        view=base[10:16],
        same_storage=base.reshape(3, 20),
        turned=torch.randn(4, 6).T,
        conv=torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    )
    same(save(tmp_path / "x.pt", state, zipped=zipped), state)


@LAYOUTS
def test_what_a_module_saves(tmp_path, zipped):
    """An OrderedDict with attributes: the version numbers of modules."""
    state = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2)).state_dict()
    assert state._metadata
    same(save(tmp_path / "x.pt", state, zipped=zipped), state)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_any_pickle_protocol(tmp_path, protocol):
    state = {"w": torch.randn(3), "v": torch.randn(2)}
    torch.save(state, tmp_path / "x.pt", pickle_protocol=protocol)
    same(tmp_path / "x.pt", state)


@LAYOUTS
def test_epoch_and_step_are_dropped_and_nothing_else(tmp_path, zipped):
    state = {"w": torch.ones(2), "epoch": 7, "step": 1 << 40}
    same(save(tmp_path / "x.pt", state, zipped=zipped), {"w": torch.ones(2)})
    message = refused(save(tmp_path / "x.pt", state | {"lr": 0.1}, zipped=zipped))
    assert "lr is float, expected a flat dict of tensors" in message


@LAYOUTS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_epoch_and_step_may_be_numbers_of_any_library(tmp_path, zipped, protocol):
    path, weights = tmp_path / "x.pt", {"w": torch.ones(2)}
    for number in (1.5, True, None, torch.tensor(3), torch.ones(2).sum(), np.int64(3)):
        values = (number, np.float32(1.5), np.bool_(True))
        for state in ({"epoch": v, **weights, "step": v} for v in values):
            torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
            same(path, weights)
    assert "lr is Opaque" in refused(save(path, weights | {"lr": np.int64(3)}, zipped=zipped))


@given(data=st.data())
def test_rows_are_those_of_the_tensor(tmp_path_factory, data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    tensor = torch.randn(shape).permute(*data.draw(st.permutations(range(len(shape)))))
    path = save(tmp_path_factory.getbasetemp() / "rows.pt", {"t": tensor})
    start = data.draw(st.integers(0, len(tensor)))
    stop = data.draw(st.integers(start, len(tensor)))
    rows = open_torch(path).read_rows("t", start, stop)
    np.testing.assert_array_equal(rows, tensor[start:stop].numpy())


# --- code in the file


class Canary:
    """Pickled, it asks to make a folder."""

    folder = ""

    def __reduce__(self):
        import os

        return os.mkdir, (self.folder,)


@pytest.fixture
def canary(tmp_path):
    value = Canary()
    Canary.folder = str(tmp_path / "ran")
    yield value
    assert not (tmp_path / "ran").exists()


@LAYOUTS
def test_code_is_named_and_not_run(tmp_path, canary, zipped):
    for state in ({"w": torch.ones(2), "epoch": canary}, canary, [canary], {canary.folder: canary}):
        message = refused(save(tmp_path / "x.pt", state, zipped=zipped))
        assert "it asks to call posix.mkdir. Nothing of it was run" in message


def test_the_canary_would_have_sung(tmp_path):
    Canary.folder = str(tmp_path / "ran")
    save(tmp_path / "x.pt", Canary())
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


def archive(path, described, **members):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", described)
        for name, content in members.items():
            file.writestr(f"x/{name}", content)
    return path


CALL = b"cposix\nmkdir\n(S'%b'\ntR."
PROGRAMS = {
    "REDUCE": b"\x80\x02" + CALL,
    "INST": b"(S'%b'\niposix\nmkdir\n.",
    "OBJ": b"(cposix\nmkdir\nS'%b'\no.",
    "NEWOBJ": b"\x80\x02cposix\nmkdir\nS'%b'\n\x85\x81.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x93S'%b'\n\x85R.",
    "dotted": b"\x80\x04\x8c\x0bcollections\x8c\x18OrderedDict.__class__.mro\x93S'%b'\n\x85R.",
    "NumPy's": b"\x80\x02cnumpy\ndtype\n)R}X\x01\x00\x00\x00a" + CALL[:-1] + b"sb.",
    "BUILD": b"ccollections\nOrderedDict\n}S'__init__'\ncposix\nmkdir\nsbS'%b'\n\x85R.",
    "EXT": b"\x82\x01.",
    "PERSID": b"Pposix.mkdir\n.",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_way_of_asking_works(tmp_path, canary, program):
    code = PROGRAMS[program]
    code = code % canary.folder.encode() if b"%b" in code else code
    assert "holds more than weights" in refused(archive(tmp_path / "x.pt", code))


LAUGHS = b"\x80\x02)" + b"q\0h\0\x86" * 100  # a pair of pairs of pairs …


@pytest.mark.parametrize(
    "end", [b"R.", b"Q.", b")R.", b"}h\0K\1s.", b"ccollections\nOrderedDict\nh\0R."]
)
def test_a_value_that_unfolds_without_end_is_not_unfolded(tmp_path, end):
    """Its text, its hash and its comparison would take 2 ** 100 steps."""
    refused(archive(tmp_path / "x.pt", LAUGHS + end))


@given(st.binary(max_size=60))
def test_no_pickle_does_more_than_be_refused_or_give_values(data):
    """Random instructions: an error that a caller expects, or plain values."""
    reader = torch_files._Reader()
    try:
        value = reader.read(io.BytesIO(b"\x80\x02" + data))
    except (ValueError, LookupError, TypeError, EOFError):
        return
    kinds = (int, float, str, bytes, bool, tuple, list, dict, type(None), torch_files.Global)
    assert isinstance(value, kinds)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=20,
    ),
    st.sampled_from(range(1, 6)),
)
def test_values_are_those_that_pickle_wrote(value, protocol):
    written = pickle.dumps(value, protocol)
    assert torch_files._Reader().read(io.BytesIO(written)) == value
    assert torch_files._Reader().read(io.BytesIO(pickletools.optimize(written))) == value


# --- damage


@LAYOUTS
def test_every_truncation_is_refused(tmp_path, zipped):
    whole = save(tmp_path / "x.pt", {"w": torch.ones(300)}, zipped=zipped).read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(whole), 97), len(whole) - 1]:
        (tmp_path / "x.pt").write_bytes(whole[:length])
        refused(tmp_path / "x.pt")


def tensor_of(first=0, shape=(2,), strides=(1,), count=2, kind="FloatStorage", key="0"):
    """A pickle of {"w": tensor} with these facts, storage by persistent id."""

    class Writer(pickle._Pickler):
        def persistent_id(self, value):
            return value[1] if isinstance(value, tuple) and value[:1] == ("id",) else None

    out = io.BytesIO()
    storage = ("id", ("storage", getattr(torch, kind, kind), key, "cpu", count))

    class Rebuilt:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (storage, first, shape, strides, False, {})

    Writer(out, 2).dump({"w": Rebuilt()})
    return out.getvalue()


def test_a_written_out_tensor_is_read(tmp_path):
    data = np.arange(2, dtype="<f4").tobytes()
    path = archive(tmp_path / "x.pt", tensor_of(), **{"data/0": data})
    assert open_torch(path).read("w").tolist() == [0, 1]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"count": 3}, "has 8 bytes"),
        ({"first": 1}, "passes the end"),
        ({"shape": (3,)}, "passes the end"),
        ({"shape": (1 << 40, 1 << 40), "strides": (0, 0)}, "passes the end"),
        ({"strides": (2,)}, "passes the end"),
        ({"strides": (-1,)}, "impossible sizes"),
        ({"first": -1}, "impossible sizes"),
        ({"shape": (1 << 63,)}, "impossible sizes"),
        ({"shape": (2, 1)}, "without a storage"),
        ({"count": -1}, "a storage"),
        ({"key": "1"}, "x/data/1"),
        ({"kind": "ComplexFloatStorage"}, "ComplexFloatStorage"),
    ],
)
def test_tensors_that_cannot_be_are_refused(tmp_path, facts, words):
    path = archive(tmp_path / "x.pt", tensor_of(**facts), **{"data/0": b"\0" * 8})
    assert words in refused(path)


def test_archives_that_torch_does_not_write_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x/data.pkl", tensor_of())
        file.writestr("x/data/0", b"\0" * 8)
    assert "compressed" in refused(path)
    data = {"data/0": b"\0" * 8}
    assert "byteorder" in refused(archive(path, tensor_of(), byteorder=b"big", **data))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("y", b"")
    assert "no data.pkl" in refused(path)
    monkeypatch.setattr(torch_files, "MAX_PICKLE_BYTES", 20)
    assert "data.pkl has" in refused(archive(path, tensor_of(), **data))


@given(st.data())
def test_one_changed_byte_is_refused_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    whole = save(folder / "whole.pt", {"w": torch.ones(3), "v": torch.zeros(2)}).read_bytes()
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    (folder / "changed.pt").write_bytes(changed)
    with contextlib.suppress(CorruptFile):
        file = open_torch(folder / "changed.pt")
        assert all(file.read(name).size <= 3 for name in file.shapes)


def test_a_file_far_too_large_is_not_looked_into(tmp_path):
    with (tmp_path / "x.pt").open("wb") as file:
        file.truncate(torch_files.MAX_FILE_BYTES + 1)
    assert "expected at most" in refused(tmp_path / "x.pt")
    assert "missing" in refused(tmp_path / "absent.pt")


ROW = pickle.dumps(torch_files.MAGIC, 2) + pickle.dumps(1001, 2)
LITTLE = pickle.dumps({"little_endian": True}, 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\3\4",
        b"not this",
        b"\x80\x02.",
        b"\x80\x02K\1.",
        ROW + pickle.dumps(3, 2) * 3,
        ROW + pickle.dumps({"little_endian": False}, 2) + pickle.dumps({}, 2) * 2,
        ROW + LITTLE + pickle.dumps({}, 2) + pickle.dumps(3, 2),
        ROW + LITTLE + pickle.dumps({}, 2) + pickle.dumps([3], 2),
        ROW + LITTLE + pickle.dumps({}, 2) + pickle.dumps(["absent"], 2),
        ROW + LITTLE + pickle.dumps([], 2) * 2,
    ],
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    assert "not a whole file of tensors" in refused(tmp_path / "x.pt")
