import json
import sys

import numpy as np
import pytest
import soundfile
from lettered_checkpoint import make_lettered

from antiphon.apps.cli import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_lettered(tmp_path_factory.mktemp("analyze"), alike=True)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """44 recordings of noise, the last four of texts that were said before."""
    folder, rng, lines = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0), []
    for i in range(44):
        samples = rng.integers(6_000, 12_000)
        soundfile.write(folder / f"r{i}.flac", 0.1 * rng.standard_normal(samples), 16000)
        lines.append(json.dumps({"file": f"r{i}.flac", "text": f"{'abcd'[i % 4]} {i % 40}"}))
    (folder / "index.jsonl").write_text("\n".join(lines))
    return folder


def test_similarity_prints_a_table_and_writes_what_was_asked_for(
    checkpoint, spoken, tmp_path, capsys
):
    pytest.importorskip("matplotlib", reason="the extra `report` is not installed")
    result, pictures = tmp_path / "found.json", tmp_path / "new" / "pictures"
    options = ["--limit", "9", "--json", str(result), "--pictures", str(pictures)]
    assert main(["analyze", "similarity", str(checkpoint), str(spoken), *options]) == 0
    out, err = capsys.readouterr()
    assert "9 sentences, spoken and written" in out
    assert "the branches split after layer 2" in out
    found = json.loads(result.read_text())
    assert found["sentences"] == [f"r{i}" for i in range(9)]
    assert len(found["levels"]) == len(out.splitlines()) - 3 == 6
    drawn = {path.name: path.read_text() for path in pictures.iterdir()}
    assert set(drawn) == {"similarity.svg", "similarity-maps.svg"}
    assert all(text.rstrip().endswith("</svg>") and len(text) < 150_000 for text in drawn.values())
    assert all(str(pictures / name) in err for name in drawn)


def test_tokenizer_prints_a_table_and_draws_the_same_twice(checkpoint, spoken, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the extra `report` is not installed")
    for folder in ("one", "two"):
        options = ["--steps", "3", "--pictures", str(tmp_path / folder)]
        assert main(["analyze", "tokenizer", str(checkpoint), str(spoken), *options]) == 0
    out, _ = capsys.readouterr()
    half = len(out.splitlines()) // 2
    assert out.splitlines()[:half] == out.splitlines()[half:]
    assert "of other sentences read, 95 %" in out
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["codes", "frames", "log-mel"]
    one, two = (tmp_path / folder / "tokenizer.svg" for folder in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_similarity_takes_one_recording_of_each_text(checkpoint, spoken, tmp_path):
    result = tmp_path / "found.json"
    arguments = ["analyze", "similarity", str(checkpoint), str(spoken), "--json", str(result)]
    assert main(arguments) == 0
    assert json.loads(result.read_text())["sentences"] == [f"r{i}" for i in range(40)]


@pytest.mark.parametrize(
    ("experiment", "limit", "message"),
    [("similarity", "7", "7 recordings with 7"), ("tokenizer", "39", "39 recordings with 39")],
)
def test_too_few_recordings_are_refused_unread(experiment, limit, message, spoken, capsys):
    # there is no checkpoint there: nothing was opened
    assert main(["analyze", experiment, "nowhere", str(spoken), "--limit", limit]) == 1
    assert message in capsys.readouterr().err


def test_a_damaged_recording_is_named(checkpoint, spoken, tmp_path, capsys):
    for path in spoken.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "r3.flac").write_bytes(b"not sound")
    assert main(["analyze", "similarity", str(checkpoint), str(tmp_path)]) == 1
    assert "r3.flac: not a readable sound file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "extra"), [("torch", "antiphon[export]"), ("matplotlib", "antiphon[report]")]
)
def test_a_missing_library_is_named_before_the_work(module, extra, spoken, monkeypatch, capsys):
    for name in [n for n in sys.modules if n.startswith("antiphon.export.analysis")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [n for n in sys.modules if n.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    options = ["--pictures", str(spoken / "pictures")]
    assert main(["analyze", "similarity", "nowhere", str(spoken), *options]) == 1
    assert extra in capsys.readouterr().err


def test_a_result_that_cannot_be_written_is_refused_before_the_work(spoken, tmp_path, capsys):
    options = ["--json", str(tmp_path / "none" / "found.json")]
    assert main(["analyze", "similarity", "nowhere", str(spoken), *options]) == 1
    assert "there is no folder" in capsys.readouterr().err
