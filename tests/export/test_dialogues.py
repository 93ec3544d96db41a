"""Dialogues for calibration hold what conversations hold, and the same seed gives the same ones."""

from dataclasses import replace

import numpy as np
import pytest

from antiphon.export.dialogues import Interview
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.prompt import PromptBuilder
from antiphon.runtime.text import TextTokenizer

TEXTS = [f"Question {i}?" for i in range(5)]
RNG = np.random.default_rng(5)
SOUNDS = [0.1 * RNG.standard_normal(n).astype(np.float32) for n in (5000, 12000, 20000)]


def rows_of(bundle, texts=()):
    text = TextTokenizer(bundle.tokenizer_path)
    prompt = PromptBuilder(bundle.manifest.tokens, text.encode, text.encode_plain)
    return prompt, [prompt.text_turn("user", t) for t in texts]


def holds(grid, rows):
    """How many times `rows` stand in `grid`."""
    windows = np.lib.stride_tricks.sliding_window_view(grid, rows.shape)[:, 0]
    return int((windows == rows).all(axis=(1, 2)).sum())


def test_the_same_seed_gives_the_same_dialogues(random_bundle):
    runs = [list(Interview(random_bundle, SOUNDS, TEXTS, seed=s).dialogues(2)) for s in (1, 1, 2)]
    for one, two in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(one, two)
    assert any(not np.array_equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))


def test_they_begin_with_the_system_turn_and_hold_whole_turns(random_bundle):
    prompt, _ = rows_of(random_bundle)
    prompts = random_bundle.manifest.prompts
    for index, grid in enumerate(Interview(random_bundle, SOUNDS, TEXTS).dialogues(4)):
        system = prompt.system(prompts.text if index % 2 else prompts.spoken)
        np.testing.assert_array_equal(grid[: len(system)], system)
        np.testing.assert_array_equal(grid[-1], prompt.close_turn()[-1])
        asked, answered = (holds(grid, prompt.open_turn(r)) for r in ("user", "assistant"))
        assert 1 <= asked == answered <= 3


def test_every_question_is_asked_before_one_is_asked_again(random_bundle):
    _, turns = rows_of(random_bundle, TEXTS)
    grids = list(Interview(random_bundle, [], TEXTS).dialogues(6))
    counts = [sum(holds(grid, turn) for grid in grids) for turn in turns]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 1


def test_spoken_and_written_questions_take_turns(random_bundle):
    prompt, turns = rows_of(random_bundle, TEXTS)
    grids = list(Interview(random_bundle, SOUNDS, TEXTS).dialogues(4))
    written = sum(holds(grid, turn) for grid in grids for turn in turns)
    spoken = sum(holds(grid, prompt.user_open()) for grid in grids)
    assert abs(written - spoken) <= 1


def test_a_question_too_long_for_the_context_is_shortened(random_bundle):
    long = 0.1 * np.random.default_rng(6).standard_normal(16000 * 40).astype(np.float32)
    m = random_bundle.manifest
    forgetful = Bundle(random_bundle.path, replace(m, lm=replace(m.lm, context_rows=256)))
    prompt, _ = rows_of(random_bundle)
    for grid in Interview(forgetful, [long]).dialogues(2):
        assert len(grid) <= 256
        assert holds(grid, prompt.user_open()) == 1 <= holds(grid, prompt.user_close_speech())


def test_without_questions_there_is_nothing_to_do(random_bundle):
    with pytest.raises(ConfigError, match="no question to calibrate with; give recordings or"):
        Interview(random_bundle, [])
