import json

import numpy as np
import pytest
import torch
from lettered_checkpoint import make_lettered

from antiphon.export.analysis.probe import STEPS, Training, fits
from antiphon.export.analysis.recording import Recording
from antiphon.export.analysis.speech import Ear, Heard
from antiphon.export.analysis.spelling import Alphabet, edits, plain, steps_needed
from antiphon.export.analysis.tokenizer_check import (
    CODES,
    FRAMES,
    LEAST,
    LOG_MEL,
    check,
    check_texts,
    usage,
)
from antiphon.export.checkpoint import Checkpoint
from antiphon.runtime.errors import AudioError, ConfigError

LETTERS = "abcdef "
TRAINING = Training(steps=100, rate=0.05, dropout=0.0)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("What's 'two' plus two?", "what's two plus two"),
        ("  Naïve\tÉTÉ—2½ ", "naïve été 21⁄2".replace("⁄", " ")),
        ("我们 好。", "我们 好"),
        ("''", ""),
    ],
)
def test_punctuation_and_case_are_not_read(text, spelled):
    assert plain(text) == spelled


def test_edits_are_the_least():
    assert edits("kitten", "sitting") == 3
    assert edits([], ["a", "b"]) == edits(["a", "b"], []) == 2
    assert edits("same", "same") == 0


def test_letters_come_back_from_their_steps():
    alphabet = Alphabet(["add bad"])
    labels = alphabet.encode("bad dad")
    assert steps_needed(labels) == 7
    assert steps_needed(alphabet.encode("add")) == 4  # a blank between the two
    path = [0, *labels[:3], 0, *np.repeat(labels[3:], 2), 0]
    assert alphabet.decode(np.array(path)) == "bad dad"
    assert alphabet.decode(np.zeros(0, np.int64)) == ""
    assert len(alphabet.encode("xyz")) == 0
    assert not fits(1, alphabet.encode("bad bad"))
    assert fits(2, alphabet.encode("bad bad"))
    assert not fits(5, alphabet.encode(""))


def heard(count):
    """Recordings whose codes are letters, whose frames are clean and whose log-mel is noise."""
    rng, book = np.random.default_rng(0), np.eye(len(LETTERS), dtype=np.float32)
    made = []
    for number in range(count):
        ids = rng.integers(0, len(LETTERS), 12)
        ids[[0, -1]] = 0, 1  # no space at the ends
        text = plain("".join(LETTERS[i] for i in ids))
        ids = np.array([LETTERS.index(c) for c in text])
        noise = rng.standard_normal((len(ids), 5)).astype(np.float32)
        made.append(Heard(f"r{number}", text, ids, book[ids], noise))
    return made, book


@pytest.fixture(scope="module")
def found():
    torch.set_num_threads(1)
    made, book = heard(80)
    progress = []
    result = check(made, book, TRAINING, lambda *at: progress.append(at))
    assert progress[-1] == (300, 300)
    assert sorted(progress) == progress
    return result


def test_the_probe_reads_what_is_there_and_nothing_else(found):
    by = {r.way: r for r in found.readings}
    assert by[CODES].letters.high < 0.25
    assert by[FRAMES].letters.high < 0.25
    assert by[LOG_MEL].letters.low > 0.5
    assert by[LOG_MEL].words.value > by[LOG_MEL].letters.value
    assert found.cost(CODES, FRAMES).high < 0.05
    assert found.cost(LOG_MEL, CODES).low > 0.5


def test_no_sentence_is_on_both_sides(found):
    assert (found.trained_on, found.too_fast, len(found.truth)) == (64, 0, 16)
    made, book = heard(80)
    twice = check(made + made, book, Training(steps=1))
    assert (twice.trained_on, len(twice.truth)) == (128, 32)
    assert set(twice.truth) == set(found.truth)


def test_a_recording_too_fast_for_its_text_is_left_out_of_the_training():
    made, book = heard(60)
    hasty = [
        Heard(h.name, h.text, h.codes[:1], h.pooled[:1], h.log_mel[:1]) if i < 20 else h
        for i, h in enumerate(made)
    ]
    found = check(hasty, book, Training(steps=1))
    assert found.too_fast > 0
    assert found.trained_on + found.too_fast + len(found.truth) == 60
    with pytest.raises(ConfigError, match="no recording is slow enough"):
        check([Heard(h.name, h.text * STEPS, h.codes[:1], h.pooled[:1], h.log_mel[:1])
               for h in made], book, Training(steps=1))  # fmt: skip


def test_a_check_repeats_itself_and_fits_into_json(found):
    made, book = heard(80)
    again = check(made, book, TRAINING).as_dict()
    assert json.loads(json.dumps(again, allow_nan=False)) == found.as_dict()


def test_usage_counts_bits():
    even = usage([np.arange(4), np.arange(4)], 8)
    assert (even.counts, even.bits, even.bits_per_s) == ((2, 2, 2, 2), 2.0, 25.0)
    assert usage([np.array([3, 3]), np.array([1])], 8).counts == (2, 1)


def test_few_or_wordless_sentences_are_refused():
    with pytest.raises(ConfigError, match=rf"{LEAST} recordings with 1 different"):
        check_texts(["Yes.", "yes"] * (LEAST // 2))
    with pytest.raises(ConfigError, match="1 of them without words"):
        check_texts([*(f"text {i}" for i in range(LEAST)), "…"])


def test_the_ear_hears_what_the_reference_does(tmp_path):
    source = Checkpoint.open(make_lettered(tmp_path, alike=False))
    ear, tokenizer = Ear(source), source.reference().tokenizer
    pcm = 0.1 * np.random.default_rng(0).standard_normal(480_000 + 2000).astype(np.float32)
    got = ear.hear(Recording("long", "a text", lambda: pcm))
    with torch.no_grad():
        exact = tokenizer.encode(torch.from_numpy(pcm)).numpy()
    np.testing.assert_array_equal(got.codes, exact)
    assert len(exact) == 375 + 2
    quantized = tokenizer.encoder.quantize(torch.from_numpy(got.pooled)).numpy()
    np.testing.assert_array_equal(quantized, exact)
    assert got.log_mel.shape == (377, 4 * source.tokenizer_config.num_mel_bins)
    assert ear.codebook.shape == (32, 64)
    with pytest.raises(AudioError, match="silence: holds no samples"):
        ear.hear(Recording("silence", "a text", lambda: pcm[:0]))
