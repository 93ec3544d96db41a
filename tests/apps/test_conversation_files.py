"""A conversation kept on disk: sound that can be played at any time, turns, rows to go on with."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from antiphon.apps.conversation_files import Recorder, read_rows, write_rows
from antiphon.apps.stereo_wav import StereoWav
from antiphon.runtime.conversation import Conversation
from antiphon.runtime.duplex_event import Event, Kind
from antiphon.runtime.errors import AudioError, ConfigError
from antiphon.runtime.metrics import TurnMetrics
from antiphon.runtime.reply import Ending, Reply

FAULTS = {"underruns": 2}


@pytest.fixture(scope="module")
def manifest(random_bundle):
    return random_bundle.manifest


def conversation(*lengths):
    """A system turn of 4 rows and turns of these lengths."""
    starts = np.cumsum([4, *lengths])
    rows = np.arange(2 * starts[-1], dtype=np.int64).reshape(-1, 2)
    return Conversation(rows, tuple(starts[:-1].tolist()))


def reply():
    reply = Reply(True, TurnMetrics(), None)
    reply.codes, reply.ending = [1, 2, 3], Ending.COMPLETE
    return reply


def test_a_sound_file_can_be_played_while_it_grows(tmp_path):
    path = tmp_path / "a.wav"
    wav = StereoWav(path, 8000)
    assert soundfile.info(path).frames == 0
    left, right = np.linspace(-1, 1, 12000), np.full(12000, 3.0)
    wav.write(left, right)
    heard, rate = soundfile.read(path)
    assert rate == 8000
    np.testing.assert_allclose(heard[:, 0], left, atol=1e-4)
    np.testing.assert_allclose(heard[:, 1], 1, atol=1e-4)
    wav.write(left[:10], right[:10])
    wav.close()
    wav.close()
    assert len(soundfile.read(path)[0]) == 12010
    with pytest.raises(AudioError, match="cannot be written: File exists"):
        StereoWav(path, 8000)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    wav = StereoWav(tmp_path / "a.wav", 8000)

    class Full:
        closed = True

        def write(self, data):
            raise OSError(28, "No space left on device")

    wav._file.close()
    wav._file = Full()
    with pytest.raises(AudioError, match=r"a.wav: cannot be written: No space left"):
        wav.write(np.zeros(10), np.zeros(10))


def test_both_sides_stand_beside_each_other(manifest, tmp_path):
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype("f4") / 2
    played = np.linspace(-1, 1, 24000, dtype="f4")
    with Recorder(tmp_path, manifest) as recorder:
        for near, far in zip(np.split(tone, 100), np.split(played, 100), strict=True):
            recorder.hear(near, far)
    both, rate = soundfile.read(tmp_path / "sound-001.wav")
    assert (rate, len(both)) == (24000, 24000)
    np.testing.assert_allclose(both[:, 1], played, atol=1e-4)
    expected = np.sin(2 * np.pi * 440 * np.arange(24000) / 24000) / 2
    late = np.argmax(np.correlate(both[:, 0], expected[:20000], "full")) - 19999
    assert 0 <= late <= 260  # at most 10 ms


def test_an_exchange_is_a_line(manifest, tmp_path):
    now = iter(range(1000, 1100))
    with Recorder(tmp_path, manifest, clock=lambda: next(now)) as recorder:
        recorder.tell(Event(Kind.SPEECH_START, 1.0, 1.1))
        recorder.tell(Event(Kind.REPLY_BEGAN, 2.0, 2.0, reply()))
        ended = Event(Kind.REPLY_ENDED, 3.0, 3.0, reply())
        recorder.tell(ended)
        recorder.keep(ended, conversation(5), 33, FAULTS)
        dropped = Event(Kind.DROPPED, 4.0, 4.0, reason="too short")
        recorder.tell(dropped)
        recorder.keep(dropped, conversation(5), 33, FAULTS)
    first, second = map(json.loads, (tmp_path / "turns.jsonl").read_text().splitlines())
    assert (first["sound"], first["started"], first["ending"]) == (
        "sound-001.wav",
        1000,
        "complete",
    )
    assert [e["kind"] for e in first["events"]] == ["speech_start", "reply_began", "reply_ended"]
    assert first["events"][0] == {
        "kind": "speech_start",
        "at_s": 1.0,
        "decided_s": 1.1,
        "clock": 1001,
    }
    assert (first["codes"], first["rows"], first["faults"]) == (3, 33, FAULTS)
    assert second["events"][0]["reason"] == "too short"
    np.testing.assert_array_equal(read_rows(tmp_path).rows, conversation(5).rows)


def test_a_second_conversation_does_not_replace_the_first(manifest, tmp_path):
    for _ in range(2):
        with Recorder(tmp_path, manifest) as recorder:
            recorder.hear(np.zeros(160, "f4"), np.zeros(240, "f4"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sound-001.wav", "sound-002.wav"]


def test_a_sound_file_that_is_full_is_followed_by_another(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr("antiphon.apps.stereo_wav.MOST_SAMPLES", 24000 + 12000)

    def hear(recorder, seconds):
        for _ in range(round(100 * seconds)):
            recorder.hear(np.zeros(160, "f4"), np.zeros(240, "f4"))

    with Recorder(tmp_path, manifest) as recorder:
        hear(recorder, 1.02)  # silence: the next file begins after half a second and a block
        for end_s in (2.0, 3.0):  # not within an exchange
            recorder.tell(Event(Kind.SPEECH_START, end_s - 1, end_s - 1))
            hear(recorder, 1.0)
            event = Event(Kind.REPLY_ENDED, end_s, end_s, reply())
            recorder.tell(event)
            recorder.keep(event, conversation(5), 33, FAULTS)
    lines = list(map(json.loads, (tmp_path / "turns.jsonl").read_text().splitlines()))
    assert [line["sound"] for line in lines] == ["sound-003.wav", "sound-004.wav"]
    assert [line["events"][0]["at_s"] for line in lines] == [-0.02, -0.02]
    lengths = [len(soundfile.read(tmp_path / f"sound-00{n}.wav")[0]) for n in (1, 2, 3, 4, 5)]
    assert lengths == [12240, 12240, 24000, 24000, 0]


def test_rows_are_written_whole_or_not_at_all(manifest, tmp_path):
    path = tmp_path / "conversation.json"
    write_rows(path, manifest, conversation(3))
    write_rows(path, manifest, conversation(3, 4))
    assert [p.name for p in tmp_path.iterdir()] == ["conversation.json"]
    assert read_rows(tmp_path).turns == (4, 7)
    with pytest.raises(AudioError, match="cannot be written"):
        write_rows(tmp_path / "no" / "such.json", manifest, conversation(3))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file or directory; name a folder that"),
        ("{", "not JSON"),
        ("[1]", "format version None, expected 1"),
        ('{"format_version": 2}', "format version 2, expected 1"),
        ('{"format_version": 1}', "not a saved conversation"),
        (
            '{"format_version": 1, "conversation": {"rows": [[1]], "turns": []}}',
            "expected integers",
        ),
    ],
)
def test_what_cannot_be_resumed_is_named(text, said, tmp_path):
    if text is not None:
        (tmp_path / "conversation.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_rows(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(manifest, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(AudioError, match="cannot be made"):
            Recorder(folder, manifest)


def test_a_conversation_of_another_model_is_refused(random_bundle, tmp_path):
    from antiphon.runtime.session import Session

    session = Session(random_bundle)
    write_rows(tmp_path / "conversation.json", random_bundle.manifest, session.conversation)
    session.restore(read_rows(tmp_path))
    other = replace(session.conversation, rows=session.conversation.rows + 1)
    write_rows(tmp_path / "conversation.json", random_bundle.manifest, other)
    with pytest.raises(ConfigError, match="saved conversation"):
        session.restore(read_rows(tmp_path))
