"""The published ids (contract A.1 and B.1), and a language model as deep, but far narrower."""

import json
from pathlib import Path

from antiphon.export.reference.config import LMConfig
from antiphon.runtime.manifest import SpecialTokens

NARROW_LM = LMConfig(
    vocab_size=151680,
    audio_vocab_size=16512,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=36,
    num_shared_layers=32,
    num_modality_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    rope_theta=1e6,
)
TOKENS = SpecialTokens(
    endoftext=151643,
    im_start=151644,
    im_end=151645,
    sosp=151646,
    modality_pad=151667,
    eosp=16384,
    audio_pad=512,
)
IDS = json.loads((Path(__file__).parent / "golden" / "qwen3-ids.json").read_text("utf-8"))
