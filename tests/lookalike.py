"""A small checkpoint with the names, types and files of the published one (contract H and K).

Built from the census alone, without the reference modules: what opens it has read the contract too.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

CENSUS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "tensor-census.json").read_text()
)
SMALL = {  # contract K, except that the vocabularies and the layer counts are the real ones
    "lm": {"H": 32, "I": 48, "NQ": 64, "NKV": 32, "HD": 16},
    "tokenizer": {"d": 64, "f": 96},
    "flow": {"E": 64, "EFF": 96, "EH": 1, "C": 32, "A": 64, "CFF": 128, "TE": 128, "X2": 64},
    "hift": {"B": 64, "B2": 32, "B4": 16, "B8": 8, "F0": 48},
}
LM_CONFIG = {
    "architectures": ["MossSpeechForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "audio_vocab_size": 16512,
    "auto_map": {"AutoConfig": "configuration_moss_speech.MossSpeechConfig"},
    "channels": 2,
    "eosp_token_id": 16384,
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 40960,
    "modality_pad_token_id": 151667,
    "model_type": "moss_speech",
    "num_attention_heads": 4,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "num_modality_layers": 4,
    "num_shared_layers": 32,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sosp_token_id": 151646,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151680,
}
CODEC_CONFIG = {
    "activation_function": "gelu",
    "d_model": 64,
    "dropout": 0.0,
    "encoder_attention_heads": 1,
    "encoder_causal_attention": True,
    "encoder_causal_convolution": True,
    "encoder_ffn_dim": 96,
    "encoder_layers": 32,
    "max_source_positions": 1500,
    "num_mel_bins": 128,
    "pooling_kernel_size": 4,
    "pooling_position": 16,
    "pooling_type": "avg",
    "quantize_causal_block_size": 200,
    "quantize_encoder_only": True,
    "quantize_position": 16,
    "quantize_vocab_size": 16384,
    "scale_embedding": False,
    "torch_dtype": "float32",
}
FEATURES = {
    "chunk_length": 30,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 128,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480000,
    "nb_max_frames": 3000,
    "padding_value": 0.0,
    "return_attention_mask": False,
    "sampling_rate": 16000,
}
ADDED_TOKENS = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|object_ref_start|>": 151646,
    "<think>": 151667,
}
YAML = "__set_seed1: !apply:random.seed [1986]\nchunk_size: 5\nflow: !new:somewhere.Flow\n"


def expand(pattern: str) -> list[str]:
    """`a.{0..2}.b` -> a.0.b, a.1.b, a.2.b; several ranges give all combinations."""
    parts = re.split(r"\{(\d+)\.\.(\d+)\}", pattern)
    ranges = [range(int(a), int(b) + 1) for a, b in zip(parts[1::3], parts[2::3], strict=True)]
    texts = parts[::3]
    return [
        "".join(itertools.chain(*zip(texts, [*map(str, numbers), ""], strict=True)))
        for numbers in itertools.product(*ranges)
    ]


def census(key: str, sizes: Mapping[str, int] | None = None) -> dict[str, tuple[int, ...]]:
    """Needed tensors of one file and their shapes; `sizes` replaces some of the real sizes."""
    entry = CENSUS[key]
    symbols = entry["symbols"] | dict(sizes or {})
    return {
        name: tuple(symbols[d] if d in symbols else int(d) for d in dims.split())
        for pattern, dims in entry["tensors"].items()
        if pattern not in entry["optional"]
        for name in expand(pattern)
    }


def tensors(key: str) -> dict[str, Tensor]:
    """Small random tensors of one file."""
    generator = torch.Generator().manual_seed(len(key))
    dtype = torch.bfloat16 if CENSUS[key]["dtype"] == "BF16" else torch.float32
    return {
        name: (0.1 * torch.randn(shape, generator=generator)).to(dtype)
        for name, shape in census(key, SMALL[key]).items()
    }


def junk(d: int) -> dict[str, Tensor]:
    """What the published tokenizer file seems to hold besides the needed tensors."""
    names = ["encoder.layers.16.fc1.weight", "encoder.layers.31.self_attn.q_proj.bias"]
    names += ["encoder.layer_norm.weight", "encoder.ema_weight", "encoder.embed_positions2.weight"]
    names += ["decoder.layers.0.fc1.weight", "proj_out.weight", "conv1.weight"]
    return {name: torch.full((d,), float("nan")) for name in names} | {
        "encoder.ema_count": torch.zeros(16384, dtype=torch.int64)
    }


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def make_lookalike(folder: Path) -> Path:
    """Write the checkpoint into `folder` and return it."""
    lm, codec = folder / "MOSS-Speech", folder / "MOSS-Speech-Codec"
    write_json(lm / "config.json", LM_CONFIG)
    added = [{"id": i, "content": c, "special": True} for c, i in ADDED_TOKENS.items()]
    write_json(lm / "tokenizer.json", {"version": "1.0", "added_tokens": added, "model": {}})
    write_lm(lm, tensors("lm"))
    write_json(codec / "config.json", CODEC_CONFIG)
    write_json(codec / "preprocessor_config.json", FEATURES)
    save_file(tensors("tokenizer") | junk(64), codec / "model.safetensors")
    (codec / "flow").mkdir()
    (codec / "flow" / "config.yaml").write_text(YAML)
    torch.save(tensors("flow") | {"epoch": 7, "step": 700}, codec / "flow" / "flow-chunk-5.pt")
    torch.save(tensors("hift"), codec / "flow" / "hift.pt")
    return folder


def write_lm(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Three shards, tensors dealt out like cards: nothing but the index knows where one is."""
    names = list(state)
    files = {name: f"model-{1 + i % 3:05d}-of-00003.safetensors" for i, name in enumerate(names)}
    for file in sorted(set(files.values())):
        save_file({name: state[name] for name in names if files[name] == file}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": files}
    write_json(folder / "model.safetensors.index.json", index)
