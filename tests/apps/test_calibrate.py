"""`calibrate`: what it asks, what it says, and that it goes on after an interruption."""

import numpy as np
import pytest

from antiphon.apps import audio_file
from antiphon.apps.cli import main
from antiphon.export import calibration


@pytest.fixture
def argv(random_bundle, tmp_path):
    """A command with two recordings, one of them with its text."""
    folder = tmp_path / "questions"
    folder.mkdir()
    for name, count in (("one", 8000), ("two", 12000)):
        pcm = 0.1 * np.random.default_rng(count).standard_normal(count).astype(np.float32)
        audio_file.write(folder / f"{name}.wav", pcm, 16000)
    (folder / "two.txt").write_text("What is two?")
    checkpoint = random_bundle.path.parent / "checkpoint"
    options = ["--bundle", random_bundle.path, "--questions", folder, "--dialogues", 2]
    return [str(word) for word in ("calibrate", checkpoint, tmp_path / "out", *options)]


def test_it_says_what_it_does_and_what_came_of_it(argv, tmp_path, capsys):
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path / 'out'}: 5 layers, ")
    lines = err.splitlines()
    assert lines[0] == "1/1 dialogues"
    assert lines[1] == "1/5 model.shared_block.layers.0"
    assert lines[-1] == "5/5 audio_lm_head"


def test_an_interruption_leaves_what_is_finished(argv, monkeypatch, capsys):
    save = calibration.save_layer

    def interrupted(folder, layer, *seen):
        if layer == "text_lm_head":
            raise KeyboardInterrupt
        save(folder, layer, *seen)

    monkeypatch.setattr(calibration, "save_layer", interrupted)
    assert main(argv) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(argv) == 0
    err = capsys.readouterr().err.splitlines()
    assert err[:2] == ["going on after an earlier calibration; finished: 2", "3/5 text_lm_head"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--rows", "0"], "whole number from 1, got '0'"),
        (["--seed", "-1"], "whole number from 0, got '-1'"),
        (["--device", "moon"], "invalid choice: 'moon'"),
    ],
)
def test_a_mistake_is_explained(change, said, argv, capsys):
    with pytest.raises(SystemExit):
        main([*argv, *change])
    assert said in capsys.readouterr().err


def test_a_folder_without_recordings_is_refused(argv, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main([*argv, "--questions", str(tmp_path / "empty")]) == 1
    assert "no wav or flac recording here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
