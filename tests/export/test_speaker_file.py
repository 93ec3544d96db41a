"""Only a speaker encoder of the contract's inputs and outputs is taken over into a bundle."""

import onnx
import pytest

from antiphon.export import speaker_file
from antiphon.export.speaker_file import check_speaker
from antiphon.runtime.errors import CorruptFile
from benchmarks.lookalike import Numbers, write_speaker

OUTPUT = "float32[1, 192]"
EXPECTED = (
    "expected one input float32[1, T, 80], any T, and an output float32[1, 192]; is it the "
    "published campplus.onnx?"
)


@pytest.fixture
def path(tmp_path):
    write_speaker(tmp_path / "campplus.onnx", 4, Numbers())
    return tmp_path / "campplus.onnx"


def refused(path, words):
    with pytest.raises(CorruptFile, match=r"campplus\.onnx") as caught:
        check_speaker(path, 192)
    assert words in str(caught.value)


def shapes(value_info, *sizes):
    dims = value_info.type.tensor_type.shape.dim
    for dim, size in zip(dims, sizes, strict=True):
        dim.Clear()
        if isinstance(size, str):
            dim.dim_param = size
        else:
            dim.dim_value = size


def test_the_contracts_shapes_with_open_and_unsaid_sizes_too(path):
    check_speaker(path, 192)
    model = onnx.load(path)
    shapes(model.graph.input[0], "batch", "time", 80)
    shapes(model.graph.output[0], "batch", "width")
    onnx.save(model, path)
    check_speaker(path, 192)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    check_speaker(path, 192)


@pytest.mark.parametrize("ir_version", [3, 8])
def test_weights_may_be_listed_as_inputs(path, ir_version):
    """Exporters for old versions do so; the engine library still wants one input."""
    model = onnx.load(path)
    model.ir_version = ir_version
    for tensor in model.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.insert(0, info)
    onnx.save(model, path)
    assert len(model.graph.input) > 1
    check_speaker(path, 192)


def external(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="other.data")


def foreign(model):
    model.graph.node[0].domain = "com.example"


def two_inputs(model):
    model.graph.input.append(model.graph.input[0])


def no_output(model):
    del model.graph.output[:]


def whole_numbers(model):
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (external, "keeps weights in other files"),
        (foreign, "operators of ['com.example']"),
        (two_inputs, f"float32[1, 'T', 80], float32[1, 'T', 80], {OUTPUT}, {EXPECTED}"),
        (no_output, f"float32[1, 'T', 80], {EXPECTED}"),
        (whole_numbers, f"int64[1, 'T', 80], {OUTPUT}, {EXPECTED}"),
        (lambda m: shapes(m.graph.input[0], 1, "T", 40), f"[1, 'T', 40], {OUTPUT}, {EXPECTED}"),
        (lambda m: shapes(m.graph.input[0], 2, "T", 80), f"[2, 'T', 80], {OUTPUT}, {EXPECTED}"),
        (lambda m: shapes(m.graph.input[0], 1, 200, 80), f"[1, 200, 80], {OUTPUT}, {EXPECTED}"),
        (lambda m: shapes(m.graph.output[0], 1, 512), f"float32[1, 512], {EXPECTED}"),
    ],
)
def test_another_graph_is_refused(path, change, words):
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    refused(path, words)


def test_what_is_no_graph_is_refused(path, monkeypatch):
    path.write_bytes(path.read_bytes()[:-5])
    refused(path, "not a readable ONNX model")
    monkeypatch.setattr(speaker_file, "MAX_BYTES", 1 << 10)
    refused(path, "more than")
    path.unlink()
    refused(path, "not a file")
