"""A whole checkpoint of a few hundred kilobytes: random weights, all modules, one voice."""

import json
from pathlib import Path

import numpy as np
import torch

from antiphon.export.checkpoint import Reference
from antiphon.export.checkpoint_writer import Extras, save_checkpoint
from antiphon.export.reference.config import FlowConfig, HiftConfig, LMConfig, TokenizerConfig
from antiphon.export.reference.flow import Flow
from antiphon.export.reference.hift import Hift
from antiphon.export.reference.lm import MossSpeechLM
from antiphon.export.reference.speech_tokenizer import SpeechTokenizer

LM = LMConfig(
    vocab_size=96,
    audio_vocab_size=48,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_shared_layers=2,
    num_modality_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    rope_theta=1e6,
    modality_pad_token_id=95,
    sosp_token_id=94,
    eosp_token_id=32,
    audio_pad_token_id=5,
)
TOKENIZER = TokenizerConfig(
    d_model=64,
    encoder_attention_heads=1,
    encoder_ffn_dim=128,
    quantize_position=2,
    quantize_vocab_size=32,
    num_mel_bins=80,
)
FLOW = FlowConfig(
    vocab_size=32,
    width=64,
    heads=1,
    ffn=64,
    blocks=1,
    up_blocks=1,
    channels=32,
    transformer_heads=1,
    transformers=1,
    mid_blocks=1,
)
HIFT = HiftConfig(base_channels=16, f0_channels=16)
SPECIAL = {91: "<|endoftext|>", 92: "<|im_start|>", 93: "<|im_end|>", 94: "<|object_ref_start|>"}


def make_checkpoint(folder: Path) -> Path:
    """Write `folder`/tiny and return it."""
    torch.set_num_threads(1)
    torch.manual_seed(6)
    added = [{"id": i, "content": text} for i, text in SPECIAL.items()]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    rng = np.random.default_rng(7)
    voice = {
        "prompt_codes": rng.integers(0, 32, 20),
        "prompt_mel": rng.normal(-5, 1, (80, 80)).astype(np.float32),
        "embedding": rng.standard_normal(192).astype(np.float32),
    }
    reference = Reference(MossSpeechLM(LM), SpeechTokenizer(TOKENIZER), Flow(FLOW), Hift(HIFT))
    # a fresh codebook is far larger than the frames it stands for
    reference.tokenizer.encoder.codebook.weight.data.mul_(0.3)
    extras = Extras(tokenizer_json=folder / "tokenizer.json", voices={"anna": voice})
    save_checkpoint(folder / "tiny", reference, extras)
    return folder / "tiny"
