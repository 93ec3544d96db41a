"""A whole checkpoint of a few hundred kilobytes: random weights, all modules, one voice."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

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
    reference = Reference(MossSpeechLM(LM), SpeechTokenizer(TOKENIZER), Flow(FLOW), Hift(HIFT))
    # a fresh codebook is far larger than the frames it stands for
    reference.tokenizer.encoder.codebook.weight.data.mul_(0.3)
    save_tokenizer(folder / "tokenizer.json", min(SPECIAL), SPECIAL.values())
    voice = voice_of_noise(np.random.default_rng(7), codes=20, below=32)
    extras = Extras(tokenizer_json=folder / "tokenizer.json", voices={"anna": voice})
    save_checkpoint(folder / "tiny", reference, extras)
    return folder / "tiny"


def voice_of_noise(rng: np.random.Generator, *, codes: int, below: int) -> dict[str, np.ndarray]:
    """The members of a voice file: `codes` random prompt codes < `below`, mel and embedding."""
    return {
        "prompt_codes": rng.integers(0, below, codes),
        "prompt_mel": rng.normal(-5, 1, (80, 4 * codes)).astype(np.float32),
        "embedding": rng.standard_normal(192).astype(np.float32),
    }


def save_tokenizer(path: Path, letters: int, special: Iterable[str], others: int = 0) -> Path:
    """Ids: the first `letters` bytes, 256 for all, then special tokens, the named ones first."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:letters]
    made = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([*special, *(f"<|{number}|>" for number in range(others))])
    made.save(str(path))
    return path
