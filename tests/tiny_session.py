"""A whole bundle with random weights, small enough to hold a conversation with in a test."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import tiny_checkpoint
import torch
from tiny_checkpoint import save_tokenizer, voice_of_noise

from antiphon.export import pipeline
from antiphon.export.checkpoint import Reference
from antiphon.export.checkpoint_writer import Extras, save_checkpoint
from antiphon.export.reference.flow import Flow
from antiphon.export.reference.hift import Hift
from antiphon.export.reference.lm import MossSpeechLM
from antiphon.export.reference.speech_tokenizer import SpeechTokenizer
from antiphon.runtime.bundle import Bundle

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<think>"]
CODES, AUDIO_PAD = 48, 40
LM = replace(
    tiny_checkpoint.LM,
    vocab_size=272,  # 256 bytes and the special tokens
    audio_vocab_size=64,
    intermediate_size=64,
    num_hidden_layers=2,
    num_shared_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    rope_theta=1e4,
    sosp_token_id=259,
    modality_pad_token_id=260,
    eosp_token_id=CODES,
    audio_pad_token_id=AUDIO_PAD,
)
TOKENIZER = replace(
    tiny_checkpoint.TOKENIZER, encoder_ffn_dim=64, quantize_position=1, quantize_vocab_size=CODES
)
FLOW = replace(tiny_checkpoint.FLOW, vocab_size=64)
HIFT = replace(tiny_checkpoint.HIFT, base_channels=8, f0_channels=8)
PROMPTS = {"speech": "Speak.", "text": "Write."}


def make_bundle(folder: Path) -> Bundle:
    """Write the checkpoint, export it, open it."""
    torch.set_num_threads(1)
    torch.manual_seed(11)
    reference = Reference(MossSpeechLM(LM), SpeechTokenizer(TOKENIZER), Flow(FLOW), Hift(HIFT))
    reference.tokenizer.encoder.codebook.weight.data.mul_(0.3)  # the size of pooled frames
    reference.lm.text_lm_head.weight.data.mul_(4)  # clear winners: rounding decides nothing
    reference.lm.audio_lm_head.weight.data.mul_(4)
    extras = Extras(
        tokenizer_json=save_tokenizer(folder / "tokenizer.json", 256, SPECIAL),
        voices={"anna": voice_of_noise(np.random.default_rng(12), codes=5, below=CODES)},
        prompts=PROMPTS,
        sampling={"do_sample": True, "max_new_tokens": 40, "repetition_penalty": 1.1},
    )
    save_checkpoint(folder / "checkpoint", reference, extras, dtype="fp32", shards=1)
    with patch.object(pipeline, "measure", lambda *_: {}):  # the parity report takes longest
        pipeline.export(folder / "checkpoint", folder / "bundle", weights="fp32", noise_frames=1200)
    bundle = Bundle.open(folder / "bundle")
    bundle.engine = cache(bundle.engine)  # weights are immutable: all sessions share them
    return bundle
