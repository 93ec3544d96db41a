"""Sound files: every format that should be read is, everything else is refused by name."""

import struct

import numpy as np
import pytest
import soundfile

from antiphon.apps import audio_file
from antiphon.apps.audio_file import AudioError, check_output, inspect, read, write

TONE = 0.25 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000).astype("f4")  # 1 s at 8 kHz


def tone(rate: int, seconds: float = 0.5) -> np.ndarray:
    return (0.25 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)).astype("f4")


def error_of(path) -> str:
    with pytest.raises(AudioError) as caught:
        read(inspect(path), 16000)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000, 192000])
def test_every_rate_becomes_16_khz(rate, tmp_path):
    soundfile.write(tmp_path / "q.wav", tone(rate), rate)
    facts = inspect(tmp_path / "q.wav")
    pcm = read(facts, 16000)
    assert facts.duration_s == pytest.approx(0.5, abs=1e-4)
    assert pcm.dtype == np.float32
    assert abs(len(pcm) - 8000) <= 1
    middle = slice(500, 7500)
    np.testing.assert_allclose(pcm[:8000][middle], tone(16000)[middle], atol=0.01)


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("q.wav", "PCM_U8"),
        ("q.wav", "PCM_16"),
        ("q.wav", "PCM_24"),
        ("q.wav", "PCM_32"),
        ("q.wav", "FLOAT"),
        ("q.wav", "DOUBLE"),
        ("q.wav", "ULAW"),
        ("q.flac", "PCM_16"),
        ("q.flac", "PCM_24"),
    ],
)
def test_every_sample_format_is_read(name, subtype, tmp_path):
    soundfile.write(tmp_path / name, tone(16000), 16000, subtype=subtype)
    np.testing.assert_allclose(read(inspect(tmp_path / name), 16000), tone(16000), atol=0.02)


@pytest.mark.parametrize("channels", [2, 8])
@pytest.mark.parametrize("name", ["q.wav", "q.flac"])
def test_the_first_channel_is_used_and_not_the_mean(name, channels, tmp_path):
    sound = np.zeros((8000, channels), "f4")
    sound[:, 0] = tone(16000)
    sound[:, 1:] = 0.9
    soundfile.write(tmp_path / name, sound, 16000)
    facts = inspect(tmp_path / name)
    assert facts.channels == channels
    np.testing.assert_allclose(read(facts, 16000), tone(16000), atol=1e-4)


def test_reading_in_blocks_changes_nothing(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "q.wav", tone(48000, 2.5), 48000)
    facts = inspect(tmp_path / "q.wav")
    blocks = read(facts, 16000)
    monkeypatch.setattr(audio_file, "_BLOCK_S", 10)
    np.testing.assert_allclose(read(facts, 16000), blocks, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 800])
def test_very_short_sound_is_sound(samples, tmp_path):
    soundfile.write(tmp_path / "q.wav", np.zeros(samples), 16000)
    assert len(read(inspect(tmp_path / "q.wav"), 16000)) == samples


def test_floats_beyond_one_are_clipped(tmp_path):
    soundfile.write(tmp_path / "q.wav", np.array([3e38, -5, 0.5]), 16000, subtype="FLOAT")
    np.testing.assert_array_equal(read(inspect(tmp_path / "q.wav"), 16000), [1, -1, 0.5])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused(value, tmp_path):
    sound = tone(16000, 2)
    sound[20000] = value
    soundfile.write(tmp_path / "q.wav", sound, 16000, subtype="FLOAT")
    assert "near 1.00 s are not finite" in error_of(tmp_path / "q.wav")


def test_a_missing_file_is_refused(tmp_path):
    assert "No such file" in error_of(tmp_path / "q.wav")


def test_a_folder_is_refused(tmp_path):
    assert "not a file" in error_of(tmp_path)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"hello, this is no sound at all" * 9])
def test_other_bytes_are_refused(data, tmp_path):
    (tmp_path / "q.wav").write_bytes(data)
    assert "not a readable sound file" in error_of(tmp_path / "q.wav")


@pytest.mark.parametrize("name", ["q.wav", "q.flac"])
def test_a_file_without_samples_is_refused(name, tmp_path):
    soundfile.write(tmp_path / name, np.zeros(0), 16000)
    error_of(tmp_path / name)


@pytest.mark.parametrize("name", ["q.wav", "q.flac"])
@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused(name, share, tmp_path):
    soundfile.write(tmp_path / "whole", tone(16000, 2), 16000, format=name[2:].upper())
    data = (tmp_path / "whole").read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    error_of(tmp_path / name)


def test_the_loss_of_a_single_sample_is_noticed(tmp_path):
    soundfile.write(tmp_path / "q.wav", tone(16000), 16000)
    data = (tmp_path / "q.wav").read_bytes()
    (tmp_path / "q.wav").write_bytes(data[:-2])
    assert "2 bytes before its header says" in error_of(tmp_path / "q.wav")


def test_a_recording_written_into_a_pipe_is_read(tmp_path):
    soundfile.write(tmp_path / "q.wav", tone(16000), 16000)
    data = (tmp_path / "q.wav").read_bytes()
    at = data.index(b"data") + 4
    (tmp_path / "q.wav").write_bytes(data[:at] + struct.pack("<I", 0xFFFFFFFF) + data[at + 4 :])
    assert len(read(inspect(tmp_path / "q.wav"), 16000)) == 8000


def test_chunks_around_the_samples_do_not_matter(tmp_path):
    soundfile.write(tmp_path / "q.wav", tone(16000), 16000)
    data = (tmp_path / "q.wav").read_bytes()
    at = data.index(b"data")
    extra = b"LIST" + struct.pack("<I", 5) + b"abcde\0"  # an odd length has a byte of padding
    (tmp_path / "q.wav").write_bytes(data[:at] + extra + data[at:] + extra)
    assert len(read(inspect(tmp_path / "q.wav"), 16000)) == 8000


def test_a_stream_without_a_length_is_refused(tmp_path):
    soundfile.write(tmp_path / "q.flac", tone(16000), 16000)
    data = bytearray((tmp_path / "q.flac").read_bytes())
    data[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    data[22:26] = bytes(4)
    (tmp_path / "q.flac").write_bytes(data)
    assert "states no length" in error_of(tmp_path / "q.flac")


@pytest.mark.parametrize("rate", [4000, 7999, 192001, 384000])
def test_rates_outside_the_range_are_refused(rate, tmp_path):
    soundfile.write(tmp_path / "q.wav", np.zeros(100), rate)
    assert f"{rate} Hz" in error_of(tmp_path / "q.wav")


def test_other_formats_are_refused_by_name(tmp_path):
    soundfile.write(tmp_path / "q.aiff", tone(16000), 16000)
    assert "AIFF" in error_of(tmp_path / "q.aiff")


def test_a_reply_is_written_as_16_bit_mono(tmp_path):
    write(tmp_path / "r.wav", np.array([0, 0.5, -0.5, 1.3, -7], "f4"), 24000)
    with soundfile.SoundFile(tmp_path / "r.wav") as file:
        assert (file.samplerate, file.channels, file.subtype) == (24000, 1, "PCM_16")
        np.testing.assert_array_equal(file.read(dtype="int16"), [0, 16384, -16384, 32767, -32767])
    assert [path.name for path in tmp_path.iterdir()] == ["r.wav"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "r.wav").write_bytes(b"old")

    def half(path, *args, **kwargs):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile, "write", half)
    with pytest.raises(AudioError, match="No space left"):
        write(tmp_path / "r.wav", TONE, 24000)
    assert (tmp_path / "r.wav").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["r.wav"]


def test_what_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(AudioError, match="not finite"):
        write(tmp_path / "r.wav", np.array([0, np.nan], "f4"), 24000)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "r.wav").symlink_to(tmp_path / "deep" / "real.wav")
    check_output(tmp_path / "r.wav")
    write(tmp_path / "r.wav", TONE, 24000)
    assert (tmp_path / "r.wav").is_symlink()
    assert (tmp_path / "deep" / "real.wav").stat().st_size > 1000


@pytest.mark.parametrize("name", ["r.wav", "r.WAV", "r"])
def test_a_good_place_is_accepted_and_left_empty(name, tmp_path):
    check_output(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("r.mp3", "end the name in .wav"),
        ("missing/r.wav", "No such file"),
        ("file/r.wav", "Not a directory"),
        ("folder", "not a file"),
        ("/dev/null", "not a file"),
        ("r" * 300, "name too long"),
    ],
)
def test_a_bad_place_is_refused_before_any_work(name, reason, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(AudioError, match=reason):
        check_output(tmp_path / name)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    def denied(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(audio_file.tempfile, "NamedTemporaryFile", denied)
    with pytest.raises(AudioError, match="cannot be written: Permission denied"):
        check_output(tmp_path / "r.wav")
