"""Dialogues as grid rows (contract B), for training and judging the language model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from antiphon.export.reference.config import LMConfig
from antiphon.runtime.manifest import SpecialTokens
from antiphon.runtime.prompt import SPOKEN_PROMPT, TEXT_PROMPT, PromptBuilder

from ..domain import (
    FALLBACK_ID,
    FALLBACK_REPLY,
    MEANINGS,
    OUT_OF_DOMAIN_HELD_OUT,
    OUT_OF_DOMAIN_TRAIN,
)
from ..text import SPECIALS
from .codes import Codes, load_codes
from .corpus import Rng, development, load_index
from .flow import CONFIG as FLOW
from .silence import Silences, listen_to_silence
from .tokens import fingerprint, trained_tokenizer

Rows = NDArray[np.int64]
Scored = tuple[Rows, NDArray[np.bool_]]  # grid rows [T, 2] and which of them are predicted [T]
Asked = tuple[Codes, str]  # a spoken question and its words
TRANSCRIBE_PROMPT = "Write down what the user says."
EOSP, AUDIO_PAD = FLOW.vocab_size, FLOW.vocab_size + 1
AUDIO_VOCABULARY = FLOW.vocab_size + 16
SUBSTITUTED, DROPPED = 0.08, 0.04  # codes of spoken questions
SMEARED = 0.3  # spoken questions of which a run of 3 to 6 codes is lost
FORGOTTEN = 0.15  # of the words below, in written questions
INTERRUPTED = 0.25  # replies that the next question cuts short
FILLERS = frozenset(
    "what is the tell me can you could please how much which do know give a of comes it".split()
)


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """Ids of nano: the text specials follow the BPE vocabulary, the audio ones its codes."""
    ids = [tokenizer.token_to_id(text) for text in SPECIALS]
    endoftext, im_start, im_end, sosp, modality_pad = (i for i in ids if i is not None)
    return SpecialTokens(
        endoftext=endoftext, im_start=im_start, im_end=im_end, sosp=sosp,
        modality_pad=modality_pad, eosp=EOSP, audio_pad=AUDIO_PAD,
    )  # fmt: skip


def lm_config(tokenizer: Tokenizer) -> LMConfig:
    """nano's language model: 4 shared, 2 text and 2 audio layers, 256 wide."""
    tokens = special_tokens(tokenizer)
    return LMConfig(
        vocab_size=tokenizer.get_vocab_size(), audio_vocab_size=AUDIO_VOCABULARY,
        hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_shared_layers=4,
        num_modality_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
        rope_theta=1e6, modality_pad_token_id=tokens.modality_pad, sosp_token_id=tokens.sosp,
        eosp_token_id=EOSP, audio_pad_token_id=AUDIO_PAD, max_position_embeddings=256,
    )  # fmt: skip


@dataclass
class Material:
    """All there is to say, in codes and in words. Keys are `Meaning.id`."""

    spoken: dict[str, list[Asked]] = field(default_factory=lambda: defaultdict(list))
    written: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reply_codes: dict[str, Codes] = field(default_factory=dict)
    reply_text: dict[str, str] = field(default_factory=dict)
    held_out: list[tuple[str, Codes, str]] = field(default_factory=list)  # meaning, codes, text
    silences: Silences | None = None


def gather(work: Path) -> Material:
    """Everything spoken and written, from WORK/train/codes.npz."""
    tokenizer = trained_tokenizer(work)
    codes, m = load_codes(work, fingerprint(tokenizer)), Material()
    if not codes:
        raise SystemExit("no codes of this tokenizer: run python -m nano.train.codes first")
    for meaning in MEANINGS:
        m.written[meaning.id], m.reply_text[meaning.id] = meaning.train, meaning.reply
    m.written[FALLBACK_ID], m.reply_text[FALLBACK_ID] = OUT_OF_DOMAIN_TRAIN, FALLBACK_REPLY
    for u in load_index(work, "replies"):
        if u.path.stem.endswith("_r0"):
            m.reply_codes[u.meaning] = codes[f"replies/{u.path.name}/0"]
    asked = [u for name in ("questions", "accents") for u in load_index(work, name)]
    recorded = {f"{u.path.parent.name}/{u.path.name}": u for u in asked}
    for key, value in codes.items():
        if found := recorded.get(key.rsplit("/", 1)[0]):
            m.spoken[found.meaning].append((value, found.text))
    for u in development(load_index(work, "eval")):
        m.held_out.append((u.meaning, codes[f"eval/{u.path.name}/0"], u.text))
    m.silences = listen_to_silence(work, tokenizer)
    return m


def add_noise(codes: Codes, rng: Rng) -> Codes:
    """Substitute and drop a few codes, as an unseen voice would, and now and then a run."""
    kept = codes[rng.random(len(codes)) >= DROPPED]
    wrong = rng.random(len(kept)) < SUBSTITUTED
    if rng.random() < SMEARED:
        start = int(rng.integers(0, max(1, len(kept) - 3)))
        wrong[start : start + int(rng.integers(3, 7))] = True
    return np.where(wrong, rng.integers(0, FLOW.vocab_size, len(kept)), kept)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text.lower()).strip()


HELD_OUT = {_plain(t) for m in MEANINGS for t in m.held_out} | {
    _plain(t) for t in OUT_OF_DOMAIN_HELD_OUT
}


def rephrase(text: str, rng: Rng) -> str:
    """Say it a little differently: politely, carelessly, or with a word missing."""
    spoken = text.split()
    words = [w for w in spoken if w.lower() not in FILLERS or rng.random() >= FORGOTTEN]
    if rng.random() < 0.15:
        words = [str(rng.choice(("Please", "Hello,", "Okay,", "So,", "And"))), *words]
    said = " ".join(words)
    if rng.random() < 0.1:
        said = said.rstrip("?.") + str(rng.choice((", please.", " please?", " now?")))
    return said.rstrip("?.").lower() if rng.random() < 0.15 else said


class DialogueMaker:
    """Grid rows and targets of random dialogues."""

    def __init__(self, material: Material, tokenizer: Tokenizer) -> None:
        self.material = material
        self.tokens = special_tokens(tokenizer)
        self.prompt = PromptBuilder(
            self.tokens, lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        )
        self.meanings = [k for k in material.reply_text if k != FALLBACK_ID]
        self.weights = np.ones(len(self.meanings) + 1)
        self.weights[-1] = 25.0  # the fallback
        self.weights /= self.weights.sum()
        self.meanings.append(FALLBACK_ID)

    def question(self, meaning: str, spoken: bool, rng: Rng) -> Rows:
        """The user's turn, whole."""
        m = self.material
        if spoken and m.spoken[meaning]:
            return self.spoken_turn(self.as_heard(self.recording(meaning, rng)[0], rng))
        texts = m.written[meaning]
        while True:
            text = rephrase(texts[int(rng.integers(len(texts)))], rng)
            if _plain(text) not in HELD_OUT:
                return self.prompt.text_turn("user", text)

    def recording(self, meaning: str, rng: Rng) -> Asked:
        """One of the recordings of a question."""
        recordings = self.material.spoken[meaning]
        return recordings[int(rng.integers(len(recordings)))]

    def as_heard(self, codes: Codes, rng: Rng) -> Codes:
        """Codes of a question with the noise and the silences of a real turn."""
        noisy, silences = add_noise(codes, rng), self.material.silences
        return silences.around(noisy, rng) if silences else noisy

    def spoken_turn(self, codes: Codes) -> Rows:
        """A user's spoken turn."""
        p = self.prompt
        return np.concatenate((p.user_open(), p.speech_rows(codes), p.user_close_speech()))

    def reply(self, meaning: str, spoken: bool) -> Rows:
        """What the assistant says, without the rows that close its turn."""
        m = self.material
        if spoken:
            return self.prompt.speech_rows(m.reply_codes[meaning])
        return self.prompt.text(m.reply_text[meaning])

    def exchange(
        self, question: Rows, meaning: str, spoken_reply: bool, before: Sequence[Scored] = ()
    ) -> Scored:
        """A question and its answer behind other turns, which carry no loss."""
        known = [(rows, np.zeros_like(marks)) for rows, marks in before]
        prompt = SPOKEN_PROMPT if spoken_reply else TEXT_PROMPT
        return self._join([*known, self._turn(question, meaning, spoken_reply)], prompt)

    def dialogue(self, spoken_reply: bool, turns: int, rng: Rng, spoken_share: float) -> Scored:
        """A random dialogue; the questions are spoken with the given probability."""
        prompt = SPOKEN_PROMPT if spoken_reply else TEXT_PROMPT
        return self._join(self.turns(spoken_reply, turns, rng, spoken_share), prompt)

    def turns(self, spoken_reply: bool, turns: int, rng: Rng, spoken_share: float) -> list[Scored]:
        """Random exchanges; of some replies only the beginning was heard, but not of the last."""
        made = []
        for number, m in enumerate(rng.choice(self.meanings, turns, p=self.weights), 1):
            question = self.question(m, rng.random() < spoken_share, rng)
            interrupted = number < turns and rng.random() < INTERRUPTED
            made.append(self._turn(question, m, spoken_reply, rng if interrupted else None))
        return made

    def transcription(self, turns: int, rng: Rng) -> Scored:
        """A dialogue in which every spoken question is answered by its own words."""
        parts, known = [], [k for k in self.meanings if self.material.spoken[k]]
        for meaning in rng.choice(known, turns):
            codes, text = self.recording(meaning, rng)
            turn, body = self.spoken_turn(self.as_heard(codes, rng)), self.prompt.text(text)
            prefix, closing = self.prompt.assistant_prefix(False), self.prompt.close_turn()
            parts.append(_scored((turn, prefix), body, closing))
        return self._join(parts, TRANSCRIBE_PROMPT)

    def _turn(
        self, question: Rows, meaning: str, spoken_reply: bool, cut: Rng | None = None
    ) -> Scored:
        """A question and its answer; `cut` draws where the answer is interrupted."""
        p, said = self.prompt, self.reply(meaning, spoken_reply)
        closing = p.user_close_speech() if spoken_reply else p.close_turn()
        known = (question, p.assistant_prefix(spoken_reply))
        if cut is None:
            return _scored(known, said, closing)
        return _scored(known, said[: int(cut.integers(1, len(said)))], closing, whole=False)

    def _join(self, turns: list[Scored], prompt: str) -> Scored:
        system = self.prompt.system(prompt)
        rows = np.concatenate([system, *(r for r, _ in turns)])
        return rows, np.concatenate([np.zeros(len(system), bool), *(m for _, m in turns)])


def _scored(known: Sequence[Rows], said: Rows, closing: Rows, *, whole: bool = True) -> Scored:
    """Rows of a turn. What is `said` is predicted, and that it ends there if that is the `whole`.

    The newline behind <|im_end|> is the template's, not the model's.
    """
    predicted = len(said) + (len(closing) - 1 if whole else 0)
    rows = np.concatenate((*known, said, closing))
    marks = np.zeros(len(rows), bool)
    start = len(rows) - len(said) - len(closing)
    marks[start : start + predicted] = True
    return rows, marks
