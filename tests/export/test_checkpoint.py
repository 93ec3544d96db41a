"""A published-looking checkpoint opens; a damaged one is refused, and the message says where."""

import json
import shutil
import warnings
from pathlib import Path

import lookalike
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from antiphon.export import tensor_files
from antiphon.export.checkpoint import Checkpoint, load_reference
from antiphon.export.reference.config import FlowConfig, HiftConfig, LMConfig, TokenizerConfig
from antiphon.export.reference.flow import Flow
from antiphon.export.reference.hift import Hift
from antiphon.export.reference.lm import MossSpeechLM
from antiphon.export.reference.speech_tokenizer import SpeechTokenizer
from antiphon.runtime.errors import ConfigError, CorruptFile
from benchmarks.layout import old_spelling

LM, CODEC, FLOW = "MOSS-Speech", "MOSS-Speech-Codec", "MOSS-Speech-Codec/flow"
MODULES = {"lm": MossSpeechLM, "tokenizer": SpeechTokenizer, "flow": Flow, "hift": Hift}


@pytest.fixture(scope="module")
def checkpoint(published):
    return Checkpoint.open(published)


@pytest.fixture
def damaged(published, tmp_path):
    """The same checkpoint, made of links: replace a file to damage it."""
    copy = tmp_path / "damaged"
    shutil.copytree(published, copy, copy_function=lambda a, b: Path(b).symlink_to(a))
    return copy


def replace(path, data):
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    if isinstance(data, bytes):
        path.write_bytes(data)
    elif path.suffix == ".json":
        path.write_text(json.dumps(data))
    elif path.suffix == ".pt":
        torch.save(data, path)
    else:
        save_file(data, path)


def edit_json(path, **changes):
    """Change keys of a JSON file; None removes one."""
    raw = json.loads(path.read_text()) | changes
    replace(path, {key: value for key, value in raw.items() if value is not None})


def refused(folder, error=CorruptFile):
    with pytest.raises(error) as caught:
        Checkpoint.open(folder)
    return str(caught.value)


# --- a good one


def test_sizes_come_from_the_configs_and_the_shapes(checkpoint):
    assert checkpoint.lm_config == LMConfig(
        vocab_size=151680,
        audio_vocab_size=16512,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=36,
        num_shared_layers=32,
        num_modality_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rope_theta=1000000,
    )
    assert checkpoint.tokenizer_config == TokenizerConfig(
        d_model=64,
        encoder_attention_heads=1,
        encoder_ffn_dim=96,
        quantize_position=16,
        quantize_vocab_size=16384,
    )
    small = {"width": 64, "heads": 1, "ffn": 96, "channels": 32, "transformer_heads": 1}
    assert checkpoint.flow_config == FlowConfig(**small)
    assert checkpoint.hift_config == HiftConfig(base_channels=64, f0_channels=48)


@pytest.mark.parametrize("key", MODULES)
def test_every_tensor_is_read_as_stored(checkpoint, key):
    stored = lookalike.tensors(key)
    assert set(checkpoint.names(key)) == set(stored)
    for name, tensor in stored.items():
        read = checkpoint.read(key, name)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, tensor.float().numpy())


def test_what_is_read_is_private(checkpoint):
    checkpoint.read("flow", "encoder_proj.bias")[:] = 0
    checkpoint.read("lm", "model.text_norm.weight")[:] = 0
    assert checkpoint.read("flow", "encoder_proj.bias").any()
    assert checkpoint.read("lm", "model.text_norm.weight").any()


def test_reference_modules_hold_the_weights(checkpoint, published):
    reference = load_reference(published)
    for key, module in modules(reference).items():
        assert type(module) is MODULES[key]
        assert not module.training
        for name, tensor in module.state_dict().items():
            assert tensor.dtype == torch.float32
            np.testing.assert_array_equal(tensor.numpy(), checkpoint.read(key, name))


def modules(reference):
    return {key: getattr(reference, key) for key in MODULES}


def test_weight_norm_is_fused_as_torch_does(checkpoint):
    hift = checkpoint.reference().hift
    for layer in ("conv_pre", "ups.0", "ups.2", "resblocks.8.convs1.2", "f0_predictor.condnet.8"):
        expected = hift.get_submodule(layer).weight.numpy()
        np.testing.assert_allclose(checkpoint.fused(f"{layer}.weight"), expected, rtol=2e-6)
    plain = checkpoint.read("hift", "source_downs.1.weight")
    np.testing.assert_array_equal(checkpoint.fused("source_downs.1.weight"), plain)


def test_old_weight_norm_spelling(checkpoint, damaged):
    old = {old_spelling(name): tensor for name, tensor in lookalike.tensors("hift").items()}
    assert len([name for name in old if name.endswith("_g")]) == 82
    replace(damaged / FLOW / "hift.pt", old)
    again = Checkpoint.open(damaged)
    for name in ("conv_post.weight", "ups.1.weight"):
        np.testing.assert_array_equal(again.fused(name), checkpoint.fused(name))


def test_chunk_chooses_the_flow_file(damaged):
    shutil.copy(damaged / FLOW / "flow-chunk-5.pt", damaged / FLOW / "flow-chunk-25.pt")
    assert Checkpoint.open(damaged, chunk=25).flow_config.chunk_tokens == 25


def test_old_torch_files_open(damaged):
    """Written before torch.save made zip files."""
    (damaged / FLOW / "hift.pt").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.save(
            lookalike.tensors("hift"),
            damaged / FLOW / "hift.pt",
            _use_new_zipfile_serialization=False,
        )
    name = "conv_post.bias"
    stored = lookalike.tensors("hift")[name].numpy()
    np.testing.assert_array_equal(Checkpoint.open(damaged).read("hift", name), stored)


def test_one_unsharded_lm_file_opens(damaged):
    (damaged / LM / "model.safetensors.index.json").unlink()
    save_file(lookalike.tensors("lm"), damaged / LM / "model.safetensors")
    assert Checkpoint.open(damaged).read("lm", "model.text_norm.weight").shape == (32,)


def test_facts_besides_the_tensors(damaged):
    opened = Checkpoint.open(damaged)
    assert opened.special_ids.im_start == 151644
    assert opened.sampling.top_k == 20
    assert opened.prompts.text.startswith("You are a helpful assistant.")
    assert opened.tokenizer_json == damaged / LM / "tokenizer.json"
    assert opened.voices == {}
    (damaged / "voices").mkdir()
    for name in ("bob", "ann"):
        arrays = {
            "prompt_codes": np.arange(10, dtype=np.int64),
            "prompt_mel": np.zeros((80, 40), np.float32),
            "embedding": np.ones(192, np.float32),
        }
        np.savez(damaged / "voices" / f"{name}.npz", **arrays)
    assert list(Checkpoint.open(damaged).voices) == ["ann", "bob"]


def test_rows_of_a_tensor(checkpoint):
    for key, name in (
        ("lm", "model.embed_tokens.weight"),
        ("tokenizer", "encoder.codebook.weight"),
        ("flow", "input_embedding.weight"),
        ("hift", "conv_pre.parametrizations.weight.original1"),
    ):
        rows = checkpoint.read_rows(key, name, 5, 40)
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, checkpoint.read(key, name)[5:40])


def test_the_speaker_encoder_is_found_or_not_there(damaged):
    assert Checkpoint.open(damaged).speaker == damaged / FLOW / "campplus.onnx"
    (damaged / FLOW / "campplus.onnx").unlink()
    assert Checkpoint.open(damaged).speaker is None


# --- another folder


def test_the_wrong_folder_is_said_to_be_one(published, tmp_path):
    assert "no such folder" in refused(tmp_path / "absent")
    assert "no MOSS-Speech and no MOSS-Speech-Codec in it" in refused(tmp_path)
    for part in (LM, CODEC):
        assert "itself a model's folder" in refused(published / part)
    assert "no such folder" in refused(published / LM / "config.json")


@pytest.mark.parametrize("part", [LM, CODEC])
def test_a_missing_folder_is_named_with_its_repository(damaged, part):
    shutil.rmtree(damaged / part)
    message = refused(damaged)
    assert f"damaged/{part}: missing; download OpenMOSS-Team/{part}" in message


def test_swapped_folders_are_recognized(damaged):
    (damaged / LM).rename(damaged / "other")
    (damaged / CODEC).rename(damaged / LM)
    (damaged / "other").rename(damaged / CODEC)
    assert "are the two folders swapped?" in refused(damaged, ConfigError)


# --- damage


@pytest.mark.parametrize(
    "file",
    [
        f"{LM}/config.json",
        f"{LM}/model-00002-of-00003.safetensors",
        f"{CODEC}/config.json",
        f"{CODEC}/preprocessor_config.json",
        f"{CODEC}/model.safetensors",
        f"{FLOW}/flow-chunk-5.pt",
        f"{FLOW}/hift.pt",
    ],
)
def test_a_missing_or_mangled_file_is_named(damaged, file):
    (damaged / file).unlink()
    assert file in refused(damaged)
    replace(damaged / file, b"not this")
    assert file in refused(damaged)


def test_a_truncated_shard_is_refused(damaged, published):
    file = f"{LM}/model-00001-of-00003.safetensors"
    replace(damaged / file, (published / file).read_bytes()[:-1])
    assert file in refused(damaged)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("lm", "model.audio_block.layers.3.self_attn.k_norm.weight"),
        ("tokenizer", "encoder.layers.15.fc2.bias"),
        ("tokenizer", "encoder.codebook.weight"),
        ("flow", "encoder.up_encoders.2.norm_ff.bias"),
        ("flow", "input_embedding.weight"),
        ("hift", "f0_predictor.condnet.6.parametrizations.weight.original1"),
        ("hift", "conv_pre.parametrizations.weight.original1"),
    ],
)
def test_a_missing_or_misshapen_tensor_is_named(damaged, key, name):
    state = lookalike.tensors(key)
    write = {
        "lm": lambda: lookalike.write_lm(unlinked(damaged / LM), state),
        "tokenizer": lambda: replace(damaged / CODEC / "model.safetensors", state),
        "flow": lambda: replace(damaged / FLOW / "flow-chunk-5.pt", state),
        "hift": lambda: replace(damaged / FLOW / "hift.pt", state),
    }[key]
    good = state.pop(name)
    write()
    message = refused(damaged)
    assert name in message
    assert "missing" in message
    state[name] = torch.zeros(*good.shape, 2)
    write()
    message = refused(damaged)
    assert name in message
    assert "expected" in message


def unlinked(folder):
    for path in folder.glob("model*"):
        path.unlink()
    return folder


@pytest.mark.parametrize(("key", "file"), [("flow", "flow-chunk-5.pt"), ("hift", "hift.pt")])
def test_an_unknown_tensor_or_a_nested_dict_is_refused(damaged, key, file):
    state = lookalike.tensors(key)
    replace(damaged / FLOW / file, state | {"extra.weight": torch.zeros(1)})
    assert "extra.weight" in refused(damaged)
    replace(damaged / FLOW / file, {"model": state})
    assert "flat dict" in refused(damaged)
    replace(damaged / FLOW / file, [1, 2])
    assert "flat dict" in refused(damaged)


@pytest.mark.parametrize(("old", "new"), [("weight_g", "original0"), ("weight_v", "original1")])
def test_a_weight_in_both_spellings_is_refused(damaged, old, new):
    """One would silently win, by its place in the file."""
    name = f"conv_pre.parametrizations.weight.{new}"
    for state in (lookalike.tensors("hift"), dict(reversed(lookalike.tensors("hift").items()))):
        replace(damaged / FLOW / "hift.pt", state | {f"conv_pre.{old}": 2 * state[name]})
        message = refused(damaged)
        assert f"hift.pt: {name} is there a second time as conv_pre.{old}" in message


def test_a_pickle_that_wants_to_run_code_is_refused(damaged):
    replace(damaged / FLOW / "hift.pt", {"conv_pre.bias": Path("x")})
    message = refused(damaged)
    assert f"{FLOW}/hift.pt: holds more than weights" in message
    assert "Nothing of it was run" in message


@pytest.mark.parametrize(
    ("key", "name", "file"),
    [
        ("lm", "model.text_norm.weight", f"{LM}/model-00002-of-00003.safetensors"),
        ("tokenizer", "encoder.conv1.bias", f"{CODEC}/model.safetensors"),
        ("flow", "encoder_proj.bias", f"{FLOW}/flow-chunk-5.pt"),
        ("hift", "conv_pre.bias", f"{FLOW}/hift.pt"),
    ],
)
def test_integers_in_place_of_weights_are_refused_on_opening(damaged, key, name, file):
    state = lookalike.tensors(key)
    state[name] = torch.zeros(state[name].shape, dtype=torch.int64)
    if key == "lm":
        lookalike.write_lm(unlinked(damaged / LM), state)
    else:
        replace(damaged / file, state)
    message = refused(damaged)
    assert f": {name} is I64, expected F64, F32, F16 or BF16" in message
    assert file.rpartition("-")[0] in message


def test_weights_stored_as_float64_are_read_as_float32(damaged):
    """Contracts D.2 and E.2 leave the stored type open: cast on load."""
    for key, file in (("tokenizer", "model.safetensors"), ("flow", "flow/flow-chunk-5.pt")):
        wide = {
            name: t.double() for name, t in lookalike.tensors(key).items() if t.is_floating_point()
        }
        replace(damaged / CODEC / file, wide)
    opened = Checkpoint.open(damaged)
    for key in ("tokenizer", "flow"):
        for name in opened.names(key):
            value, stored = opened.read(key, name), lookalike.tensors(key)
            kept = stored[name if name in stored else f"encoder.{name}"]
            np.testing.assert_array_equal(value, kept.numpy())


def test_an_unknown_name_is_refused(checkpoint):
    with pytest.raises(CorruptFile, match=r"model\.norm\.weight"):
        checkpoint.read("lm", "model.norm.weight")


@pytest.mark.parametrize("file", ["../x.safetensors", "/etc/hosts", "a\\b", 3])
def test_the_index_may_only_name_files_beside_it(damaged, file):
    replace(damaged / LM / "model.safetensors.index.json", {"weight_map": {"a": file}})
    assert "index.json" in refused(damaged)


@pytest.mark.parametrize("raw", [{}, {"weight_map": {}}, {"weight_map": []}, []])
def test_an_index_without_a_map_is_refused(damaged, raw):
    replace(damaged / LM / "model.safetensors.index.json", raw)
    assert "index.json" in refused(damaged)


def test_an_index_that_promises_too_much_is_refused(damaged):
    path = damaged / LM / "model.safetensors.index.json"
    raw = json.loads(path.read_text())
    raw["weight_map"]["model.norm.weight"] = "model-00001-of-00003.safetensors"
    replace(path, raw)
    assert "model.norm.weight" in refused(damaged)


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        (f"{LM}/config.json", "num_hidden_layers", 40),
        (f"{LM}/config.json", "rope_theta", None),
        (f"{LM}/config.json", "rope_scaling", {"type": "yarn"}),
        (f"{LM}/config.json", "tie_word_embeddings", True),
        (f"{LM}/config.json", "hidden_size", "32"),
        (f"{LM}/config.json", "hidden_size", -32),
        (f"{LM}/config.json", "hidden_size", 1 << 40),
        (f"{LM}/config.json", "head_dim", 1 << 20),
        (f"{LM}/config.json", "rope_theta", float("inf")),
        (f"{LM}/config.json", "rms_norm_eps", float("nan")),
        (f"{LM}/config.json", "num_key_value_heads", 3),
        (f"{LM}/config.json", "eosp_token_id", 16512),
        (f"{LM}/config.json", "modality_pad_token_id", 151680),
        (f"{CODEC}/config.json", "encoder_causal_attention", False),
        (f"{LM}/config.json", "num_attention_heads", "4"),
        (f"{LM}/config.json", "num_key_value_heads", 0),
        (f"{CODEC}/config.json", "pooling_position", 8),
        (f"{CODEC}/config.json", "pooling_kernel_size", 8),
        (f"{CODEC}/config.json", "max_source_positions", 3),
        (f"{CODEC}/config.json", "d_model", "36"),
        (f"{CODEC}/config.json", "d_model", [36]),
        (f"{CODEC}/config.json", "encoder_attention_heads", 0),
        (f"{CODEC}/config.json", "encoder_ffn_dim", 96.5),
        (f"{CODEC}/preprocessor_config.json", "hop_length", 200),
        (f"{CODEC}/preprocessor_config.json", "feature_size", 80),
        (f"{CODEC}/preprocessor_config.json", "log_mel_max", "loud"),
        (f"{CODEC}/preprocessor_config.json", "log_mel_max", 10**400),
    ],
)
def test_a_setting_we_do_not_implement_is_refused(damaged, file, field, value):
    edit_json(damaged / file, **{field: value})
    message = refused(damaged, ConfigError)
    assert field in message or "key-value heads" in message
    assert file.split("/")[0] in message


def test_config_and_tensors_must_agree(damaged):
    edit_json(damaged / LM / "config.json", intermediate_size=64)
    assert "gate_proj" in refused(damaged)
    edit_json(
        damaged / LM / "config.json",
        intermediate_size=48,
        num_shared_layers=31,
        num_hidden_layers=35,
    )
    assert "model.shared_block.layers.31" in refused(damaged)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        (f"{LM}/config.json", {"num_hidden_layers": 10**8, "num_shared_layers": 10**8 - 4}),
        (f"{CODEC}/config.json", {"quantize_position": 10**8, "pooling_position": 10**8}),
    ],
)
def test_absurd_depths_are_refused_before_anything_is_built(damaged, file, changes, monkeypatch):
    monkeypatch.setattr("antiphon.export.checkpoint.MODULES", {})
    edit_json(damaged / file, **changes)
    assert "from 0 to 1024" in refused(damaged, ConfigError)


def test_absurd_depths_in_tensor_names_build_nothing(damaged):
    layer = {"decoder.estimator.mid_blocks.9999.0.x": torch.zeros(1)}
    replace(damaged / FLOW / "flow-chunk-5.pt", lookalike.tensors("flow") | layer)
    assert "9999.0.x not expected" in refused(damaged)


def test_sizes_that_overflow_are_refused(damaged):
    wide = {"input_embedding.weight": torch.zeros(1, 1).expand(1 << 31, 1 << 31)}
    replace(damaged / FLOW / "flow-chunk-5.pt", lookalike.tensors("flow") | wide)
    assert "input_embedding.weight [2147483648, 2147483648] passes the end" in refused(damaged)
    edit_json(damaged / CODEC / "config.json", encoder_attention_heads=3)
    assert "expected a divisor of d_model" in refused(damaged, ConfigError)


def test_json_that_is_too_deep_or_too_large_is_refused(damaged, monkeypatch):
    path = damaged / LM / "config.json"
    replace(path, b'{"a":' * 200_000)
    assert "config.json: not readable as JSON" in refused(damaged)
    monkeypatch.setattr(tensor_files, "MAX_JSON_BYTES", 1 << 20)
    replace(path, b"{" + b" " * (1 << 20) + b"}")
    assert "config.json: not readable as JSON (more than 1 MB)" in refused(damaged)
