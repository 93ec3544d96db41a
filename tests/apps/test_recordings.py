import json

import numpy as np
import pytest
import soundfile

from antiphon.apps import recordings
from antiphon.apps.recordings import Spoken
from antiphon.runtime.errors import AudioError, ConfigError, CorruptFile


@pytest.fixture
def folder(tmp_path):
    for name in ("b.wav", "a.flac"):
        soundfile.write(tmp_path / name, np.zeros(160, np.float32), 16000)
    return tmp_path


def index(folder, *lines):
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "index.jsonl").write_text("\n".join(texts))


def test_the_index_gives_order_and_texts(folder):
    lines = ({"file": "b.wav", "text": " Yes. ", "voice": 7}, "", {"file": "a.flac", "text": "好"})
    index(folder, *lines)
    (folder / "a.txt").write_text("not this")
    assert recordings.find(folder) == [
        Spoken("b", folder / "b.wav", "Yes."),
        Spoken("a", folder / "a.flac", "好"),
    ]


def test_texts_may_lie_beside_the_recordings(folder):
    (folder / "a.txt").write_text("One.\n")
    (folder / "b.txt").write_text("Zwei für drei")
    assert [(s.name, s.text) for s in recordings.find(folder)] == [
        ("a", "One."),
        ("b", "Zwei für drei"),
    ]


def test_the_questions_of_a_bundle_are_recordings(folder):
    (folder / "questions.json").write_text(json.dumps({"a": {"text": "Why?", "reply": "So."}}))
    assert recordings.find(folder) == [Spoken("a", folder / "a.flac", "Why?")]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        {"file": "a.flac"},
        {"text": "Yes."},
        {"file": "a.flac", "text": " "},
        {"file": "a.flac", "text": ["Yes."]},
        {"file": "a.flac", "text": "y" * 10_001},
        {"file": "../a.flac", "text": "Yes."},
        {"file": "a.mp3", "text": "Yes."},
        {"file": 7, "text": "Yes."},
    ],
)
def test_a_line_that_says_nothing_is_named(folder, line):
    index(folder, {"file": "a.flac", "text": "Yes."}, line)
    with pytest.raises(CorruptFile, match=r"index\.jsonl, line 2: .*expected"):
        recordings.find(folder)


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        recordings.find(folder / "none")
    (folder / "a.txt").write_text("One.")
    with pytest.raises(ConfigError, match=r"b\.wav: what is said in it\? write it into b\.txt"):
        recordings.find(folder)
    (folder / "b.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(CorruptFile, match=r"b\.txt: no text"):
        recordings.find(folder)
    index(folder, {"file": "c.wav", "text": "Three."})
    with pytest.raises(AudioError, match=r"c\.wav: missing"):
        recordings.find(folder)
    index(folder)
    with pytest.raises(ConfigError, match="no recordings with texts"):
        recordings.find(folder)
