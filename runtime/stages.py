"""Everything a conversation runs through, loaded from a bundle once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from .bundle import Bundle
from .encoder import SpeechEncoder
from .flow import FlowDecoder
from .lm import LanguageModel
from .manifest import Manifest
from .prompt import Grid, PromptBuilder
from .sampling import Sampler
from .session_config import SessionConfig
from .text import TextTokenizer
from .thinker import Thinker
from .vocoder import Vocoder
from .voice import SpeechDecoder


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages with their state, and the rows of the template that never change."""

    config: SessionConfig
    manifest: Manifest
    text: TextTokenizer
    prompt: PromptBuilder
    encoder: SpeechEncoder
    lm: LanguageModel
    voice: SpeechDecoder | None  # None for written replies
    system: Grid  # the system turn, pinned
    prefix: Grid  # what a reply begins with

    @classmethod
    def load(cls, bundle: Bundle, config: SessionConfig) -> Self:
        """Load the engines that this kind of conversation needs."""
        text, spoken, voice = TextTokenizer(bundle.tokenizer_path), config.reply == "speech", None
        prompt = PromptBuilder(bundle.manifest.tokens, text.encode, text.encode_plain)
        official = bundle.manifest.prompts.spoken if spoken else bundle.manifest.prompts.text
        system = prompt.system(official if config.system is None else config.system)
        lm = LanguageModel(
            bundle,
            capacity=config.capacity_rows,
            pinned=len(system),
            chunk=config.chunk_rows,
            threads=config.threads,
            exact=config.exact,
        )
        if spoken:
            voice = SpeechDecoder(
                FlowDecoder(
                    bundle,
                    config.voice,
                    window_frames=config.voice_window_frames,
                    threads=config.threads,
                    exact=config.exact,
                ),
                Vocoder(bundle, seed=config.seed, threads=config.threads, exact=config.exact),
            )
        return cls(
            config=config,
            manifest=bundle.manifest,
            text=text,
            prompt=prompt,
            encoder=SpeechEncoder(bundle, threads=config.threads, exact=config.exact),
            lm=lm,
            voice=voice,
            system=system,
            prefix=prompt.assistant_prefix(spoken),
        )

    def thinker(self) -> Thinker:
        """Who answers the conversation as it stands."""
        tokens = self.manifest.tokens
        # by row, not by what was drawn before: a reply taken back changes nothing
        rng = np.random.default_rng((self.config.seed, self.lm.length))
        sampler = Sampler(self.config.sampling or self.manifest.sampling, tokens, rng)
        return Thinker(self.lm, self.prompt, sampler, tokens)
