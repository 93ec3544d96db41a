"""What counts as said right, and the pieces of the recipe that need no audio."""

from __future__ import annotations

import hashlib
import zipfile

import numpy as np
import pytest

from nano.domain import MEANINGS, all_replies
from nano.judges import normalise, word_errors
from nano.packages import wheel
from nano.train.corpus import Utterance, augment, development, load_index, stretch
from nano.train.pitch import yin

pytest.importorskip("tqdm")  # the training loop shows its progress
from nano.train.dialogues import HELD_OUT, rephrase


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        (" 5 plus 6 is 11.", "five plus six is eleven"),
        ("5+6=11", "five plus six is eleven"),
        ("7-7 is zero.", "seven minus seven is zero"),
        ("1-2-3.", "one two three"),
        ("I’m very well.", "i am very well"),
        ("The color of an elephant is grey.", "the color of an elephant is gray"),
    ],
)
def test_spellings_of_the_same_words_are_the_same(heard, words):
    assert normalise(heard) == words


def test_word_errors_are_counted():
    assert word_errors("five plus six is seven", "Five plus six is eleven.") == (1, 5)
    assert word_errors("", "Five plus six is eleven.") == (5, 5)
    assert word_errors("well five plus six is eleven", "Five plus six is eleven.") == (1, 5)


def test_no_two_replies_sound_the_same_to_the_judge():
    assert len({normalise(r) for r in all_replies()}) == len(all_replies())


def test_garbled_questions_keep_what_they_ask():
    rng = np.random.default_rng(0)
    for _ in range(200):
        said = rephrase("Can you tell me what nine minus three is?", rng).lower()
        assert "nine minus three" in said


def test_held_out_phrasings_are_known_to_the_maker():
    assert len(HELD_OUT) > len(MEANINGS)


def test_yin_finds_a_tone_and_leaves_silence_alone():
    t = np.arange(24000) / 24000
    tone = (0.3 * np.sin(2 * np.pi * 200 * t)).astype(np.float32)
    np.testing.assert_allclose(yin(tone)[5:-8], 200, rtol=0.01)
    assert not yin(np.zeros(24000, np.float32)).any()


def test_augmented_questions_stay_in_range():
    rng = np.random.default_rng(1)
    pcm = (0.1 * rng.standard_normal(16000)).astype(np.float32)
    for _ in range(20):
        heard = augment(pcm, rng, pcm[::-1])
        assert heard.dtype == np.float32
        assert np.abs(heard).max() <= 1
        assert np.isfinite(heard).all()
    assert len(stretch(pcm, 2.0)) == pytest.approx(8000, abs=1)


def test_the_index_skips_a_torn_line_and_a_missing_file(tmp_path):
    folder = tmp_path / "data" / "eval"
    folder.mkdir(parents=True)
    (folder / "a.flac").write_bytes(b"")
    line = '{"file": "%s.flac", "text": "t", "meaning": "m", "voice": "v", "rate": 1, "samples": 1}'
    (folder / "index.jsonl").write_text(f'{line % "a"}\n{line % "b"}\n{{"file": "c')
    assert [u.path.name for u in load_index(tmp_path, "eval")] == ["a.flac"]
    assert load_index(tmp_path, "never_made") == []


def test_a_third_is_for_development(tmp_path):
    rows = [Utterance(tmp_path / str(i), "", "", "", 1, 1) for i in range(9)]
    assert [u.path.name for u in development(rows)] == ["0", "3", "6"]


def test_a_package_that_changed_is_refused(tmp_path):
    path = tmp_path / "some_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.bin", b"weights")
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    with wheel("some-weights==1.0", good, tmp_path) as archive:
        assert archive.read("model.bin") == b"weights"
    with pytest.raises(SystemExit, match="remove the file"):
        wheel("some-weights==1.0", "0" * 64, tmp_path)
