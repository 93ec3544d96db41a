"""nano's text tokenizer: byte-level BPE in Qwen's shape, trained on the closed domain."""

from __future__ import annotations

from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from antiphon.runtime.prompt import SPOKEN_PROMPT, TEXT_PROMPT

from .domain import MEANINGS, OUT_OF_DOMAIN_TRAIN, all_replies

VOCABULARY = 1024
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<think>")
# a word with its leading space, single digits, runs of punctuation, white space: Qwen's split
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus() -> list[str]:
    """Every text nano ever reads or writes in training."""
    # the prompts open every dialogue: repeated, so that their words become single tokens
    texts = [SPOKEN_PROMPT, TEXT_PROMPT, "system\n", "user\n", "assistant\n"] * 20
    texts += [t for m in MEANINGS for t in m.train]
    return [*texts, *all_replies(), *OUT_OF_DOMAIN_TRAIN]


def build(path: Path) -> Tokenizer:
    """Train and write `tokenizer.json`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer
