"""Headers are checked before anything is believed; the safetensors library is the judge."""

import json

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from antiphon.export.safetensors_files import open_safetensors, open_shards
from antiphon.runtime.errors import CorruptFile

GOOD = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "I64", "shape": [], "data_offsets": [24, 32]},
}


def write(path, header, data=b"\1" * 32):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def refused(path):
    with pytest.raises(CorruptFile) as caught:
        open_safetensors(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_tensors_lie_where_the_header_says(tmp_path):
    path = write(tmp_path / "x", {"__metadata__": {"format": "pt"}, **GOOD}, bytes(range(32)))
    file = open_safetensors(path)
    assert file.shapes == {"a": (2, 3), "b": ()}
    assert file.tensors["b"].dtype == "I64"
    np.testing.assert_array_equal(
        file.read("a"), np.frombuffer(bytes(range(24)), "<f4").reshape(2, 3)
    )
    with pytest.raises(CorruptFile, match=r"x: b is I64, expected F64, F32, F16 or BF16"):
        file.read("b")
    with pytest.raises(CorruptFile, match="c is missing"):
        file.read("c")


def a(**changes):
    return GOOD | {"a": GOOD["a"] | changes}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"", "not a whole safetensors file"),
        (b"{", "not a whole safetensors file"),
        (b"[1]", "its header is a JSON list"),
        *((text, "its header is a JSON ") for text in (b"5", b'"abc"', b"null", b"true", b"1e5")),
        (b'{"a": 3}', "not a whole safetensors file"),
        (b'{"a": {"dtype": "F32"}}', "data_offsets"),
        (b"[" * 100_000, "not a whole safetensors file"),
        (a(data_offsets=[0, 20]), "does not take 20 bytes"),
        (a(data_offsets=[4, 24]), "begins at byte"),
        (a(data_offsets=[-4, 20]), "an entry"),
        (a(data_offsets=[0, 24.0]), "an entry"),
        (a(data_offsets=[0, 24, 25]), "not a whole safetensors file"),
        (a(shape=[2, 4]), "does not take 24 bytes"),
        (a(shape=[-2, -3]), "an entry"),
        (a(shape=[True, 6]), "an entry"),
        (a(shape=[1 << 70]), "an entry"),
        (a(dtype=4), "an entry"),
        ({"a": GOOD["a"]}, "its header says"),
        (json.dumps(GOOD).encode()[:-1] + b', "a": {}}', "stated twice"),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(tmp_path, header, words):
    assert words in refused(write(tmp_path / "x", header))


def test_a_header_as_long_as_it_likes_is_not_read(tmp_path):
    path = tmp_path / "x"
    for length in (0, 33, 1 << 40, (1 << 64) - 1):
        path.write_bytes(length.to_bytes(8, "little") + b" " * 32)
        refused(path)
    path.write_bytes(b"\0\0")
    assert "2 bytes" in refused(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "x.safetensors"
    save_file({"w": torch.arange(6.0).reshape(2, 3), "v": torch.ones(4).half()}, path)
    return path


def judged(path):
    """What the library reads, or why it does not."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, UnicodeDecodeError) as error:
        return error


@given(at=st.integers(0, 250), value=st.integers(0, 255), cut=st.integers(0, 60))
@example(at=0, value=0, cut=0)
@example(at=79, value=32, cut=0)
def test_damage_is_refused_wherever_the_library_refuses_it(whole, at, value, cut):
    """One byte changed, some cut off: we never open what it does not, and read the same."""
    data = bytearray(whole.read_bytes())
    data[min(at, len(data) - 1)] = value
    path = whole.with_name("damaged")
    path.write_bytes(data[: len(data) - cut])
    try:
        file = open_safetensors(path)
    except CorruptFile:
        return
    theirs = judged(path)
    if isinstance(theirs, Exception):
        if "unknown variant" in str(theirs):  # a dtype of the future is refused where it is needed
            with pytest.raises(CorruptFile):
                [file.read(name) for name in file.shapes]
        else:
            assert "metadata" in str(theirs).lower(), theirs  # we read no metadata
        return
    assert file.shapes == {name: tuple(t.shape) for name, t in theirs.items()}
    for name, tensor in theirs.items():
        if tensor.dtype in (torch.float32, torch.float16, torch.bfloat16):
            np.testing.assert_array_equal(file.read(name), tensor.float().numpy())


# --- shards


def test_a_name_in_two_shards_is_taken_from_where_the_index_says(tmp_path):
    for number in (1, 2):
        save_file({"t": torch.full((2,), float(number))}, tmp_path / f"{number}.safetensors")
    index = {"weight_map": {"t": "2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    file = open_shards(tmp_path)
    assert file.tensors["t"].file.path.name == "2.safetensors"
    assert file.read("t").tolist() == [2, 2]


def test_a_wrong_type_names_the_shard_not_the_index(tmp_path):
    save_file({"t": torch.zeros(2, dtype=torch.int8)}, tmp_path / "1.safetensors")
    index = {"weight_map": {"t": "1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CorruptFile, match=r"1\.safetensors: t is I8"):
        open_shards(tmp_path).check_types(["t"])
