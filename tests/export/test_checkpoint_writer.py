"""What is saved opens again, bit for bit, and a save that fails leaves nothing behind."""

import json

import lookalike
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from antiphon.export.checkpoint import Checkpoint, Reference
from antiphon.export.checkpoint_writer import Extras, save_checkpoint
from antiphon.export.reference.config import FlowConfig, HiftConfig, LMConfig, TokenizerConfig
from antiphon.export.reference.flow import Flow
from antiphon.export.reference.hift import Hift
from antiphon.export.reference.lm import MossSpeechLM
from antiphon.export.reference.speech_tokenizer import SpeechTokenizer
from antiphon.runtime.errors import ConfigError

LM, CODEC, FLOW = "MOSS-Speech", "MOSS-Speech-Codec", "MOSS-Speech-Codec/flow"


@pytest.fixture(scope="module")
def tiny():
    lm = LMConfig(
        vocab_size=64,
        audio_vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_shared_layers=2,
        num_modality_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        rope_theta=1e6,
        modality_pad_token_id=63,
        sosp_token_id=62,
        eosp_token_id=32,
        audio_pad_token_id=33,
    )
    tokenizer = TokenizerConfig(
        d_model=64,
        encoder_attention_heads=1,
        encoder_ffn_dim=64,
        quantize_position=2,
        quantize_vocab_size=32,
        num_mel_bins=20,
        max_source_positions=100,
    )
    flow = FlowConfig(
        vocab_size=32,
        width=64,
        heads=1,
        ffn=64,
        blocks=1,
        up_blocks=2,
        channels=16,
        transformer_heads=1,
        transformers=1,
        mid_blocks=1,
        chunk_tokens=3,
    )
    hift = HiftConfig(base_channels=16, f0_channels=8)
    torch.manual_seed(1)
    return Reference(MossSpeechLM(lm), SpeechTokenizer(tokenizer), Flow(flow), Hift(hift))


def modules(reference):
    return {key: getattr(reference, key) for key in ("lm", "tokenizer", "flow", "hift")}


VOICE = {
    "prompt_codes": np.arange(10, dtype=np.int64),
    "prompt_mel": np.zeros((80, 40), np.float32),
    "embedding": np.ones(192, np.float32),
}


@pytest.fixture
def extras(tmp_path):
    ids = zip(lookalike.ADDED_TOKENS, (59, 60, 61, 62, 63), strict=True)
    path = tmp_path / "any.json"
    path.write_text(json.dumps({"added_tokens": [{"id": i, "content": c} for c, i in ids]}))
    return Extras(
        tokenizer_json=path,
        voices={"ann": VOICE},
        prompts={"speech": "Speak.", "text": "Write."},
        sampling={"top_k": 3},
    )


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("fp32", torch.float32), ("fp16", torch.half)])
def test_what_is_saved_is_opened(tiny, extras, tmp_path, dtype, torch_dtype):
    out = tmp_path / "out"
    save_checkpoint(out, tiny, extras, dtype=dtype, shards=3)
    opened = Checkpoint.open(out, chunk=3)
    for key, module in modules(tiny).items():
        assert getattr(opened, f"{key}_config") == module.config
        for name, tensor in module.state_dict().items():
            expected = tensor.to(torch_dtype).float().numpy()
            np.testing.assert_array_equal(opened.read(key, name), expected)
    assert opened.special_ids.im_end == 61
    assert opened.special_ids.audio_pad == 33
    assert opened.prompts.text == "Write."
    assert opened.sampling.top_k == 3
    assert opened.tokenizer_json.read_text() == extras.tokenizer_json.read_text()
    np.testing.assert_array_equal(opened.voices["ann"].embedding, np.ones(192))


def test_saved_layout(tiny, extras, tmp_path):
    out = tmp_path / "out"
    save_checkpoint(out, tiny, extras)
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {
        f"{LM}/config.json",
        f"{LM}/model-00001-of-00002.safetensors",
        f"{LM}/model-00002-of-00002.safetensors",
        f"{LM}/model.safetensors.index.json",
        f"{LM}/tokenizer.json",
        f"{CODEC}/config.json",
        f"{CODEC}/preprocessor_config.json",
        f"{CODEC}/model.safetensors",
        f"{FLOW}/config.yaml",
        f"{FLOW}/flow-chunk-3.pt",
        f"{FLOW}/hift.pt",
        "voices/ann.npz",
    }
    index = json.loads((out / LM / "model.safetensors.index.json").read_text())
    sizes = [(out / LM / f"model-{i:05d}-of-00002.safetensors").stat().st_size for i in (1, 2)]
    assert max(sizes) < 2 * min(sizes)
    assert index["metadata"]["total_size"] == 2 * sum(p.numel() for p in tiny.lm.parameters())
    assert all(name.startswith("encoder.") for name in load_file(out / CODEC / "model.safetensors"))
    flow = torch.load(out / FLOW / "flow-chunk-3.pt", weights_only=True)
    assert isinstance(flow["epoch"], int)
    assert isinstance(flow["step"], int)
    hift = torch.load(out / FLOW / "hift.pt", weights_only=True)
    assert "conv_pre.parametrizations.weight.original0" in hift


def test_saving_twice_gives_the_same_bytes(tiny, extras, tmp_path):
    for name in "ab":
        save_checkpoint(tmp_path / name, tiny, extras)
    for path in (tmp_path / "a").rglob("*.*"):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.is_dir() or path.read_bytes() == other.read_bytes()


def test_nothing_is_overwritten_and_nothing_half_written_stays(tiny, extras, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="taken"):
        save_checkpoint(tmp_path / "taken", tiny, extras)
    before = set(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="fp8"):
        save_checkpoint(tmp_path / "new", tiny, extras, dtype="fp8")
    with pytest.raises(FileNotFoundError):
        save_checkpoint(tmp_path / "new", tiny, Extras(tokenizer_json=tmp_path / "absent"))
    scale = tiny.lm.model.text_norm.weight
    scale.data[0] = 1e6
    with pytest.raises(ConfigError, match=r"model\.text_norm\.weight"):
        save_checkpoint(tmp_path / "new", tiny, extras)
    scale.data[0] = 1.0
    assert set(tmp_path.iterdir()) == before
