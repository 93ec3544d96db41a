"""Tensors are read where they lie: as stored, row by row, and without filling memory."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import save_file

from antiphon.export.safetensors_files import open_safetensors
from antiphon.export.tensor_files import OpenFile, Stored, TensorFile
from antiphon.export.torch_files import open_torch
from antiphon.runtime.errors import CorruptFile

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tensors") / "a.safetensors"


@given(
    bits=hnp.arrays(np.uint16, hnp.array_shapes(max_dims=4, max_side=6)),
    dtype=st.sampled_from(["F16", "BF16"]),
    data=st.data(),
)
def test_every_16_bit_value_and_every_row(path, bits, dtype, data):
    """Also infinities, subnormals and NaN payloads: torch's widening is the judge."""
    tensor = torch.from_numpy(bits.view(np.int16)).view(DTYPES[dtype])
    save_file({"odd": torch.zeros(1, dtype=torch.uint8), "t": tensor}, path)
    file = open_safetensors(path)
    whole, expected = file.read("t"), tensor.float().numpy()
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, expected)
    start = data.draw(st.integers(0, len(bits)))
    stop = data.draw(st.integers(start, len(bits)))
    np.testing.assert_array_equal(file.read_rows("t", start, stop), expected[start:stop])


def test_float32_is_read_bit_for_bit(path):
    bits = np.random.default_rng(0).integers(0, 1 << 32, (50, 7), np.uint32)
    save_file({"t": torch.from_numpy(bits.view(np.int32)).view(torch.float32)}, path)
    file = open_safetensors(path)
    np.testing.assert_array_equal(file.read("t").view(np.uint32), bits)
    np.testing.assert_array_equal(file.read_rows("t", 3, 40).view(np.uint32), bits[3:40])


@given(
    values=hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=6)),
    turned=st.booleans(),
)
def test_float64_is_rounded_as_torch_does(path, values, turned):
    """And never to an infinity that was not stored."""
    tensor = torch.from_numpy(values)
    expected = tensor.float().numpy()
    if turned:  # as a torch file may hold it
        torch.save({"t": tensor.T.contiguous().T if values.ndim == 2 else tensor}, path)
        file = open_torch(path)
    else:
        save_file({"t": tensor}, path)
        file = open_safetensors(path)
    if np.isinf(expected[np.isfinite(values)]).any():
        for read in (file.read, lambda name: file.read_rows(name, 0, len(values))):
            with pytest.raises(CorruptFile, match=r"a\.safetensors: t holds .*e\+.* than float32"):
                read("t")
        return
    np.testing.assert_array_equal(file.read("t"), expected)
    np.testing.assert_array_equal(file.read_rows("t", 1, len(values)), expected[1:])


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (3.4028234663852886e38, 3.4028234663852886e38),
        (3.4028235e38, 3.4028234663852886e38),  # rounds down
        (3.4028236e38, None),
        (-1e300, None),
        (np.inf, np.inf),
        (1e-300, 0),
    ],
)
def test_the_end_of_float32(path, stored, read):
    save_file({"t": torch.tensor([1, stored], dtype=torch.float64)}, path)
    file = open_safetensors(path)
    if read is None:
        assert file.read_rows("t", 0, 1) == 1
        with pytest.raises(CorruptFile, match=r"t holds \S+, more than float32 can"):
            file.read("t")
    else:
        assert file.read("t").tolist() == [1, read]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,)])
def test_tensors_without_rows_or_with_none(path, shape):
    save_file({"t": torch.ones(shape, dtype=torch.bfloat16)}, path)
    np.testing.assert_array_equal(open_safetensors(path).read("t"), np.ones(shape, np.float32))


def test_rows_that_do_not_exist_are_a_bug_of_the_caller(path):
    save_file({"t": torch.ones(4, 2), "s": torch.ones(())}, path)
    file = open_safetensors(path)
    for name, start, stop in (("t", 0, 5), ("t", -1, 2), ("t", 3, 2), ("s", 0, 1)):
        with pytest.raises(ValueError, match="rows"):
            file.read_rows(name, start, stop)


def test_what_is_read_is_private(path):
    save_file({"t": torch.ones(4, 2)}, path)
    file = open_safetensors(path)
    file.read("t")[:] = 0
    file.read_rows("t", 0, 4)[:] = 0
    assert file.read("t").all()


def test_threads_may_read_at_once(path):
    values = torch.arange(64 * 1024, dtype=torch.float32).reshape(64, 1024)
    save_file({"t": values}, path)
    file = open_safetensors(path)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda i: file.read_rows("t", i % 64, i % 64 + 1), range(512)))
    assert all((row == values[i % 64].numpy()).all() for i, row in enumerate(rows))


def test_strides_are_followed(path):
    values = np.arange(24, dtype="<f4")
    path.write_bytes(b"header.." + values.tobytes())
    turned = Stored(OpenFile(path), "F32", (4, 3), 8 + 4 * 2, (1, 5))  # [i, j] at 2 + i + 5j
    file = TensorFile(path, {"t": turned})
    expected = np.array([[2 + i + 5 * j for j in range(3)] for i in range(4)], np.float32)
    np.testing.assert_array_equal(file.read("t"), expected)
    np.testing.assert_array_equal(file.read_rows("t", 1, 3), expected[1:3])
    file.read("t")[:] = 0
    np.testing.assert_array_equal(file.read("t"), expected)


def test_a_file_that_shrinks_while_it_is_open_is_noticed(path):
    save_file({"t": torch.ones(1000)}, path)
    file = open_safetensors(path)
    with path.open("r+b") as shrunk:
        shrunk.truncate(100)
    with pytest.raises(CorruptFile, match=r"a\.safetensors: ends at byte 100"):
        file.read("t")


def test_a_pointer_to_large_file_storage_is_named_as_such(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4967215360\n")
    with pytest.raises(CorruptFile, match="git lfs pull"):
        open_safetensors(path)


READ_ALL = """
import resource, sys
from pathlib import Path
from antiphon.export.safetensors_files import open_safetensors

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

file = open_safetensors(Path(sys.argv[1]))
file.read_rows("t", 0, 64)
before = peak()
for start in range(0, 65536, 64):
    file.read_rows("t", start, start + 64)
print(peak() - before)
"""


def test_memory_does_not_grow_with_what_was_read(path):
    """256 MB of bfloat16 in blocks of 512 kB, in a process of its own."""
    header = b'{"t":{"dtype":"BF16","shape":[65536,2048],"data_offsets":[0,268435456]}}'
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + (256 << 20))
    run = subprocess.run(
        [sys.executable, "-c", READ_ALL, path], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) <= 8
