"""Which voice may speak what: the reply voice, training voices, held-out voices, cheap accents."""

from __future__ import annotations

import random

REPLY_VOICE = "af_heart"  # answers, never asks

# Never heard in training; they ask the evaluation questions.
HELD_OUT_VOICES = ("af_sarah", "af_kore", "am_liam", "am_puck", "bf_lily", "bm_daniel")

ENGLISH_VOICES = (
    "af_alloy af_aoede af_bella af_jessica af_nicole af_nova af_river af_sky am_adam am_echo "
    "am_eric am_fenrir am_michael am_onyx am_santa bf_alice bf_emma bf_isabella bm_fable "
    "bm_george bm_lewis"
).split()
ACCENTED_VOICES = (
    "ef_dora em_alex em_santa ff_siwis if_sara im_nicola pf_dora pm_alex pm_santa"
).split()

BLEND_SHARE = 0.4
ACCENTED_SHARE = 0.15

# Cheap engines by weight; espeak stays rare, people hardly sound like it.
CHEAP_VOICES = {
    "piper_joe": 40,
    "flite_rms": 15,
    "flite_slt": 15,
    "flite_awb": 15,
    "flite_kal": 5,
    "festival_slt": 6,
    "espeak_us": 4,
}


def _one_voice(rng: random.Random) -> str:
    accented = rng.random() < ACCENTED_SHARE
    return rng.choice(ACCENTED_VOICES if accented else ENGLISH_VOICES)


def draw_question_voice(rng: random.Random) -> str:
    """A training voice, or a blend of two, written `0.30*af_sky+0.70*am_adam`."""
    voice = _one_voice(rng)
    if rng.random() >= BLEND_SHARE:
        return voice
    other = _one_voice(rng)
    share = round(rng.uniform(0.25, 0.75), 2)
    return voice if other == voice else f"{share:.2f}*{voice}+{1 - share:.2f}*{other}"


def draw_cheap_voice(rng: random.Random) -> str:
    """One of the cheap voices, by weight."""
    return rng.choices(list(CHEAP_VOICES), list(CHEAP_VOICES.values()))[0]
