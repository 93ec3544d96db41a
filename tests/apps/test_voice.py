"""`antiphon voice`, from the sound file to a bundle that `antiphon verify` accepts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_speaker import utterance, with_speaker

from antiphon.apps import cli
from antiphon.apps.parser import BUNDLE_VARIABLE
from antiphon.runtime.bundle import Bundle


@pytest.fixture(scope="module")
def enrolling(random_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_speaker(random_bundle.path, tmp_path_factory.mktemp("voice") / "bundle")


@pytest.fixture
def folder(enrolling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(enrolling, tmp_path / "Bündel mit Stimme"))
    monkeypatch.setenv(BUNDLE_VARIABLE, str(folder))
    return folder


@pytest.fixture
def eve(tmp_path: Path) -> Path:
    path = tmp_path / "eve é.wav"
    soundfile.write(path, utterance(4, 44_100), 44_100)
    return path


def antiphon(*words: object) -> int:
    return cli.main([str(word) for word in words])


def failure(capsys, *words: object) -> str:
    assert antiphon(*words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("antiphon: ")
    assert err.count("\n") == 1
    return err


def test_add_list_verify_remove(folder: Path, eve: Path, capsys) -> None:
    assert antiphon("voice", "add", "eve", eve) == 0
    out, err = capsys.readouterr()
    assert out == f"eve: prompt 4.0 s, 50 codes; {folder} speaks as anna, or as eve\n"
    assert err == ""
    assert antiphon("verify", folder) == 0
    assert "every hash right" in capsys.readouterr().out
    assert antiphon("voice", "list") == 0
    assert capsys.readouterr().out.splitlines() == [
        "anna  prompt 0.4 s, 5 codes, the default",
        "eve   prompt 4.0 s, 50 codes",
    ]
    assert antiphon("voice", "default", "eve") == 0
    assert capsys.readouterr().out == f"{folder} speaks as eve, or as anna\n"
    assert antiphon("voice", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["bundle"] == str(folder)
    assert listed["voices"][0] == {
        "name": "eve",
        "default": True,
        "prompt_codes": 50,
        "prompt_s": 4.0,
        "file": "voices/eve.npz",
    }
    assert antiphon("voice", "remove", "anna") == 0
    assert capsys.readouterr().out == f"anna: removed; {folder} speaks as eve\n"
    assert Bundle.open(folder).voices == ["eve"]


def test_the_added_voice_speaks(folder: Path, eve: Path, tmp_path: Path, capsys) -> None:
    assert antiphon("voice", "add", "eve", eve, "--default", "--bundle", folder) == 0
    replies = []
    for chosen in ([], ["--voice", "anna"]):
        reply = tmp_path / f"{len(replies)}.wav"
        assert antiphon("reply", "--text", "hello", *chosen, "--max-tokens", "6", reply) == 0
        replies.append(soundfile.read(reply)[0])
    assert len(replies[0]) == len(replies[1]) > 0  # the same words
    assert (replies[0] != replies[1]).any()


def test_other_rates_channels_and_formats(folder: Path, tmp_path: Path, capsys) -> None:
    """The second channel is not heard, and flac is as good as wav."""
    left, right = utterance(3, 48_000), utterance(3, 48_000, seed=2)
    soundfile.write(tmp_path / "both.flac", np.stack([left, right], 1), 48_000, "PCM_24")
    soundfile.write(tmp_path / "left.wav", left, 48_000, "PCM_24")
    assert antiphon("voice", "add", "both", tmp_path / "both.flac") == 0
    assert "has 2 channels; only the first is heard" in capsys.readouterr().err
    assert antiphon("voice", "add", "left", tmp_path / "left.wav") == 0
    bundle = Bundle.open(folder)
    for field in ("prompt_codes", "prompt_mel", "embedding"):
        both, one = (getattr(bundle.voice(name), field) for name in ("both", "left"))
        np.testing.assert_allclose(both, one, atol=1e-3)  # the last bit of 24 may differ


def test_what_its_owner_should_know_is_said(folder: Path, tmp_path: Path, capsys) -> None:
    quiet = np.concatenate([np.zeros(8000), 0.01 * utterance(2, 8000)])
    soundfile.write(tmp_path / "q.wav", quiet, 8000, "FLOAT")
    assert antiphon("voice", "add", "q", tmp_path / "q.wav") == 0
    err = capsys.readouterr().err
    notes = ["left out 0.8 s of silence", "only 2.2 s to learn", "quiet, -", "nothing above 4000"]
    assert [line for line in notes if f"note: {tmp_path / 'q.wav'}: {line}" not in err] == []


@pytest.mark.parametrize(
    ("pcm", "said"),
    [
        (np.zeros(72_000), "silent, expected somebody speaking"),
        (utterance(0.5), "0.5 s of sound, expected 1 to 40 s"),
        (utterance(50), "50.0 s of sound, expected 1 to 40 s"),
        (np.clip(30 * utterance(3), -1, 1), "too loud, "),
    ],
)
def test_unusable_recordings(folder: Path, tmp_path: Path, capsys, pcm, said) -> None:
    before = (folder / "manifest.json").read_bytes()
    path = tmp_path / "bad.wav"
    soundfile.write(path, pcm, 24_000)
    assert f"{path}: {said}" in failure(capsys, "voice", "add", "eve", path)
    assert (folder / "manifest.json").read_bytes() == before


def test_files_that_cannot_be_read(folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "x.wav").write_text("no sound")
    assert "not a readable sound file" in failure(capsys, "voice", "add", "e", tmp_path / "x.wav")
    assert "No such file" in failure(capsys, "voice", "add", "e", tmp_path / "none.wav")


def test_names(folder: Path, eve: Path, capsys) -> None:
    assert "there is a voice 'anna' already" in failure(capsys, "voice", "add", "anna", eve)
    assert "cannot name a voice" in failure(capsys, "voice", "add", "../anna", eve)
    assert "choose one of anna" in failure(capsys, "voice", "remove", "zoe")
    assert "choose one of anna" in failure(capsys, "voice", "default", "zoe")
    assert "is the only voice" in failure(capsys, "voice", "remove", "anna")


def test_a_model_without_a_speaker_encoder_says_so(bundle_folder: Path, eve: Path, capsys) -> None:
    err = failure(capsys, "voice", "add", "eve", eve, "--bundle", bundle_folder)
    assert "no speaker engine, so this model has only the voices it was made with (anna)" in err


def test_a_damaged_bundle_makes_no_voice(folder: Path, eve: Path, capsys) -> None:
    path = folder / "speaker.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert "does not match the manifest" in failure(capsys, "voice", "add", "eve", eve)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["voice"], "required: ACTION"),
        (["voice", "sing"], "invalid choice: 'sing'"),
        (["voice", "add", "eve"], "required: RECORDING"),
        (["voice", "add", "eve", "e.wav", "f.wav"], "unknown: f.wav"),
        (["voice", "remove"], "required: NAME"),
        (["voice", "list", "anna"], "unknown: anna"),
    ],
)
def test_usage(words: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
