"""What the published checkpoint looks like: its files, tensors and settings, at any sizes.

From the model contract (sections A.1, D.1, H and K) and the census of its tensors alone, without
the reference modules: whatever opens a folder made from this has read the contract too.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CENSUS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "tests" / "golden" / "tensor-census.json").read_text("utf-8")
)
SMALL = {  # contract K, except that the vocabularies and the layer counts are the real ones
    "lm": {"H": 32, "I": 48, "NQ": 64, "NKV": 32, "HD": 16},
    "tokenizer": {"d": 64, "f": 96},
    "flow": {"E": 64, "EFF": 96, "EH": 1, "C": 32, "A": 64, "CFF": 128, "TE": 128, "X2": 64},
    "hift": {"B": 64, "B2": 32, "B4": 16, "B8": 8, "F0": 48},
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
YAML = "__set_seed1: !apply:random.seed [1986]\nchunk_size: 5\nflow: !new:somewhere.Flow\n"
FIRST_ADDED = 151643
ADDED_TOKENS = """<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|>
<|box_start|> <|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|>
<|vision_pad|> <|image_pad|> <|video_pad|> <tool_call> </tool_call> <|fim_prefix|> <|fim_middle|>
<|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|> <tool_response> </tool_response> <think>
</think>""".split()

OLD_SPELLING = {  # of weight norm, contract F.2
    ".parametrizations.weight.original0": ".weight_g",
    ".parametrizations.weight.original1": ".weight_v",
}

Shape = tuple[int, ...]
Shapes = dict[str, Shape]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a checkpoint: symbols of the census that differ from the published ones."""

    symbols: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    shared_layers: int = 32
    modality_layers: int = 4
    old_weight_norm: bool = False  # in the vocoder's file

    def of(self, key: str) -> dict[str, int]:
        """Every symbol of one file."""
        symbols: dict[str, int] = CENSUS[key]["symbols"]
        return symbols | dict(self.symbols.get(key, {}))

    def census(self, key: str) -> Shapes:
        """Needed tensors of one file and their shapes."""
        shapes = census(key, self.symbols.get(key))
        depths = {"shared": self.shared_layers, "text": self.modality_layers}
        depths["audio"] = self.modality_layers
        return {
            name: shape
            for name, shape in shapes.items()
            if not (m := re.match(r"model\.(\w+)_block\.layers\.(\d+)\.", name))
            or int(m[2]) < depths[m[1]]
        }

    def hift(self) -> Shapes:
        """The vocoder's tensors as its file names them."""
        spelled = old_spelling if self.old_weight_norm else str
        return {spelled(name): shape for name, shape in self.census("hift").items()}

    def lm_config(self) -> dict[str, Any]:
        """`config.json` of MOSS-Speech (contract A.1)."""
        s = self.of("lm")
        return {
            "architectures": ["MossSpeechForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "audio_vocab_size": s["VA"],
            "auto_map": {"AutoConfig": "configuration_moss_speech.MossSpeechConfig"},
            "channels": 2,
            "eosp_token_id": 16384,
            "head_dim": s["HD"],
            "hidden_act": "silu",
            "hidden_size": s["H"],
            "initializer_range": 0.02,
            "intermediate_size": s["I"],
            "max_position_embeddings": 40960,
            "modality_pad_token_id": 151667,
            "model_type": "moss_speech",
            "num_attention_heads": s["NQ"] // s["HD"],
            "num_hidden_layers": self.shared_layers + self.modality_layers,
            "num_key_value_heads": s["NKV"] // s["HD"],
            "num_modality_layers": self.modality_layers,
            "num_shared_layers": self.shared_layers,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "sosp_token_id": 151646,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "vocab_size": s["VT"],
        }

    def codec_config(self) -> dict[str, Any]:
        """`config.json` of MOSS-Speech-Codec (contract D.1): half of its layers do not count."""
        s = self.of("tokenizer")
        return {
            "activation_function": "gelu",
            "d_model": s["d"],
            "dropout": 0.0,
            "encoder_attention_heads": s["d"] // 64,
            "encoder_causal_attention": True,
            "encoder_causal_convolution": True,
            "encoder_ffn_dim": s["f"],
            "encoder_layers": 32,
            "max_source_positions": s["S"],
            "num_mel_bins": s["mel"],
            "pooling_kernel_size": 4,
            "pooling_position": 16,
            "pooling_type": "avg",
            "quantize_causal_block_size": 200,
            "quantize_encoder_only": True,
            "quantize_position": 16,
            "quantize_vocab_size": s["K"],
            "scale_embedding": False,
            "torch_dtype": "float32",
        }


REAL = Sizes()


def expand(pattern: str) -> list[str]:
    """`a.{0..2}.b` -> a.0.b, a.1.b, a.2.b; several ranges give all combinations."""
    parts = re.split(r"\{(\d+)\.\.(\d+)\}", pattern)
    ranges = [range(int(a), int(b) + 1) for a, b in zip(parts[1::3], parts[2::3], strict=True)]
    texts = parts[::3]
    return [
        "".join(itertools.chain(*zip(texts, [*map(str, numbers), ""], strict=True)))
        for numbers in itertools.product(*ranges)
    ]


def census(key: str, sizes: Mapping[str, int] | None = None) -> Shapes:
    """Needed tensors of one file and their shapes; `sizes` replaces some of the real sizes."""
    entry = CENSUS[key]
    symbols = entry["symbols"] | dict(sizes or {})
    return {
        name: tuple(symbols[d] if d in symbols else int(d) for d in dims.split())
        for pattern, dims in entry["tensors"].items()
        if pattern not in entry["optional"]
        for name in expand(pattern)
    }


def layer_by_layer(shapes: Shapes) -> Shapes:
    """The language model's tensors in the order of use, as shards usually hold them."""
    order = ("model.embed", "model.audio_embed", "model.shared", "model.text", "model.audio", "")

    def place(name: str) -> tuple[int, int]:
        layer = re.search(r"\.layers\.(\d+)\.", name)
        part = next(i for i, prefix in enumerate(order) if name.startswith(prefix))
        return part, int(layer[1]) if layer else len(shapes)

    return {name: shapes[name] for name in sorted(shapes, key=place)}


def old_spelling(name: str) -> str:
    """A vocoder tensor's name as older PyTorch writes weight norm."""
    for modern, old in OLD_SPELLING.items():
        name = name.replace(modern, old)
    return name


def junk(d: int) -> Shapes:
    """What the published tokenizer file seems to hold besides the needed tensors (contract H)."""
    names = ["encoder.layers.16.fc1.weight", "encoder.layers.31.self_attn.q_proj.bias"]
    names += ["encoder.layer_norm.weight", "encoder.ema_weight", "encoder.embed_positions2.weight"]
    names += ["decoder.layers.0.fc1.weight", "proj_out.weight", "conv1.weight"]
    return {name: (d,) for name in names}


def split(shapes: Shapes, item_bytes: int, limit: int) -> list[Shapes]:
    """Two or more consecutive runs of at most `limit` bytes each, or of one larger tensor."""
    limit = min(limit, sum(math.prod(shape) for shape in shapes.values()) * item_bytes // 2)
    runs: list[Shapes] = [{}]
    taken = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * item_bytes
        if runs[-1] and taken + size > limit:
            runs.append({})
            taken = 0
        runs[-1][name] = shape
        taken += size
    return runs


def text_tokenizer() -> dict[str, Any]:
    """A `tokenizer.json` that spells every text byte by byte, with Qwen3's added tokens in place.

    Its vocabulary has the published length, so special ids are the published ones; the ids of
    ordinary text are not.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    words = sorted(ByteLevel.alphabet())
    words += [f"unused{number}" for number in range(len(words), FIRST_ADDED)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": FIRST_ADDED + n, "content": text, "special": not text.isidentifier()} | flags
        for n, text in enumerate(ADDED_TOKENS)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": byte_level | {"use_regex": False},
        "decoder": byte_level | {"use_regex": True},
        "model": {"type": "BPE", "vocab": {w: n for n, w in enumerate(words)}, "merges": []},
    }
