"""`reply`, `demo`, `info` and `verify` from end to end, on a random model."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from antiphon.apps import cli
from antiphon.apps.exchange import printable, sampling
from antiphon.apps.parser import parse
from antiphon.runtime.errors import ConfigError

pytestmark = pytest.mark.usefixtures("default_bundle")


def tone(rate: int, seconds: float) -> np.ndarray:
    return 0.25 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)


@pytest.fixture
def question(tmp_path):
    soundfile.write(tmp_path / "q.wav", tone(16000, 0.5), 16000)
    return tmp_path / "q.wav"


def reply(*argv) -> int:
    return cli.main(["reply", *map(str, argv), "--fast", "--max-tokens", "12"])


def one_error(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("antiphon: ")
    return err.splitlines()[-1]


def test_a_spoken_question_gets_a_spoken_reply(question, tmp_path, capsys):
    assert reply(question, tmp_path / "r.wav") == 0
    out, err = capsys.readouterr()
    assert out == ""
    moments = ("understood", "first token", "first spectrum", "first sound", "reply complete")
    assert [moment for moment in moments if moment not in err] == []
    assert "real-time factor" in err
    pcm, rate = soundfile.read(tmp_path / "r.wav")
    assert rate == 24000
    assert len(pcm) % 1920 == 0
    assert pcm.any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.wav", "r.wav"]


def test_a_temperature_makes_a_greedy_bundle_draw(random_bundle):
    def chosen(*argv):
        args = parse(["demo", *argv])
        return sampling(args, replace(random_bundle.manifest.sampling, do_sample=False)).do_sample

    assert chosen("--seed", "3") is False
    for option in ("--temperature", "--top-p", "--top-k"):
        assert chosen(option, "1") is True
    with pytest.raises(ConfigError, match="--greedy always takes the likeliest"):
        chosen("--greedy", "--top-k", "5")


def test_the_same_seed_gives_the_same_reply(question, tmp_path):
    for name, seed in (("a.wav", 1), ("b.wav", 1), ("c.wav", 2)):
        assert reply(question, tmp_path / name, "--seed", seed) == 0
    a, b, c = ((tmp_path / f"{name}.wav").read_bytes() for name in "abc")
    assert a == b != c


def test_real_time_changes_nothing_but_time(question, tmp_path, capsys):
    assert reply(question, tmp_path / "fast.wav") == 0
    options = ["--max-tokens", "12", "--json"]
    start = time.perf_counter()
    assert cli.main(["reply", str(question), str(tmp_path / "paced.wav"), *options]) == 0
    assert time.perf_counter() - start >= 0.5
    assert (tmp_path / "fast.wav").read_bytes() == (tmp_path / "paced.wav").read_bytes()
    facts = json.loads(capsys.readouterr().out)
    assert facts["question"]["duration_s"] == 0.5
    assert facts["reply"]["duration_s"] == facts["reply"]["codes"] * 0.08
    assert facts["metrics"]["waterfall_ms"]["first_sample"] > 0


def test_text_in_and_text_out(question, capsys):
    assert reply("--text", "hello", "--text-reply") == 0
    written = capsys.readouterr().out
    assert written.endswith("\n")
    assert reply("--text", "hello", "--text-reply", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["question"] == {"text": "hello"}
    assert printable(facts["reply"]["text"]) + "\n" == written
    assert reply(question, "--text-reply") == 0
    assert capsys.readouterr().out


def test_text_in_and_speech_out(tmp_path):
    assert reply("--text", "hello", tmp_path / "r.wav") == 0
    assert soundfile.info(tmp_path / "r.wav").samplerate == 24000


@pytest.mark.parametrize(
    ("channels", "seconds", "level", "said"),
    [(1, 0.05, 1, ""), (8, 0.3, 1, "8 channels"), (1, 0.3, 0, "is silent"), (1, 0.3, 9, "")],
)
def test_odd_but_legal_sound_is_answered(channels, seconds, level, said, tmp_path, capsys):
    sound = np.repeat(tone(48000, seconds)[:, None] * level, channels, axis=1)
    soundfile.write(tmp_path / "q.wav", sound, 48000, subtype="FLOAT")
    assert reply(tmp_path / "q.wav", tmp_path / "r.wav") == 0
    assert said in capsys.readouterr().err


def test_a_recording_that_does_not_fit_is_refused_by_its_header(tmp_path, capsys, monkeypatch):
    soundfile.write(tmp_path / "q.flac", np.zeros(8000 * 600, "int16"), 8000)
    monkeypatch.setattr("antiphon.apps.audio_file.read", None)  # is not even read
    assert reply(tmp_path / "q.flac", tmp_path / "r.wav") == 1
    assert "600.0 s long, 324.5 s fit into 4096 rows; cut the" in one_error(capsys)
    assert not (tmp_path / "r.wav").exists()


def test_a_turn_that_does_not_fit_is_refused_by_the_session(question, tmp_path, capsys):
    text = "all the words " * 400
    assert reply("--text", text, tmp_path / "r.wav", "--capacity-rows", 256) == 1
    assert "rows" in one_error(capsys)
    assert not (tmp_path / "r.wav").exists()


@pytest.mark.parametrize("name", ["", "missing", "broken"])
def test_a_bad_question_is_refused(name, tmp_path, capsys):
    (tmp_path / "broken").write_bytes(b"RIFF")
    assert reply(tmp_path / name, tmp_path / "r.wav") == 1
    one_error(capsys)
    assert not (tmp_path / "r.wav").exists()


@pytest.mark.parametrize("place", ["no/such/folder/r.wav", "r.mp3", "q.wav"])
def test_a_bad_place_is_refused_before_the_bundle_is_opened(place, question, tmp_path, capsys):
    before = question.read_bytes()
    assert reply(question, tmp_path / place, "--bundle", "nowhere") == 1
    assert "nowhere" not in one_error(capsys)
    assert question.read_bytes() == before


def test_a_missing_bundle_and_voice_are_named(question, tmp_path, capsys):
    assert reply(question, tmp_path / "r.wav", "--bundle", tmp_path) == 1
    assert "no bundle here" in one_error(capsys)
    assert reply(question, tmp_path / "r.wav", "--voice", "bert") == 1
    assert "'bert'" in one_error(capsys)


@pytest.fixture
def tampered(bundle_folder, tmp_path):
    """A bundle with one flipped bit."""
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    path = tmp_path / "bundle" / "trunk.data"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    return tmp_path / "bundle"


def test_a_tampered_bundle_is_refused(tampered, question, tmp_path, capsys):
    for argv in (["verify", str(tampered)], ["reply", "--bundle", str(tampered), str(question)]):
        rest = [str(tmp_path / "r.wav")] if argv[0] == "reply" else []
        assert cli.main([*argv, *rest]) == 1
        assert "trunk.data: sha256" in one_error(capsys)
    assert not (tmp_path / "r.wav").exists()


def test_a_whole_bundle_is_verified_and_described(bundle_folder, capsys):
    assert cli.main(["verify", str(bundle_folder)]) == 0
    assert "7 engines, every hash right" in capsys.readouterr().out
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    for word in ("anna", "temperature 0.6", "speech_branch", "fp32", '"Speak."', "not measured"):
        assert word in out
    assert "768 bytes a row, keys and values in float32" in out
    assert cli.main(["info", str(bundle_folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["path"] == str(bundle_folder)
    assert set(facts["voices"]) == {"anna"}


def test_an_interrupt_leaves_nothing(question, tmp_path, bundle_folder):
    soundfile.write(question, tone(16000, 20), 16000)
    argv = [sys.executable, "-m", "antiphon.apps.cli", "reply", "q.wav", "r.wav"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    process = subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    assert "hearing 20.0 s" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == "antiphon: interrupted\n"
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["q.wav"]


@pytest.fixture
def asked(bundle_folder, tmp_path):
    """A bundle with two recorded questions."""
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    folder = tmp_path / "bundle" / "questions"
    folder.mkdir()
    for name in ("first", "second"):
        soundfile.write(folder / f"{name}.flac", tone(24000, 0.2), 24000)
    facts = {"first": {"text": "One?", "reply": "Yes."}, "second": {"text": "Two?"}}
    (folder / "questions.json").write_text(json.dumps(facts))
    return tmp_path / "bundle"


def demo(*argv) -> int:
    return cli.main(["demo", "--max-tokens", "10", *map(str, argv)])


def test_the_demo_asks_a_question(asked, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert demo("--bundle", asked) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "asking (0.2 s): One?",
        "a right answer says: Yes.",
        "the reply is in antiphon-demo.wav",
    ]
    assert "real-time factor" in err
    assert (tmp_path / "antiphon-demo.wav").exists()
    assert demo("--bundle", asked, "--question", 2, "--reply", "r.wav", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["question"]["name"], facts["reply"]["path"]) == ("second", "r.wav")


def test_the_demo_lists_its_questions(asked, capsys):
    assert demo("--bundle", asked, "--list") == 0
    assert capsys.readouterr().out == "  1  first   One?\n  2  second  Two?\n"
    assert demo("--bundle", asked, "--list", "--json") == 0
    assert [q["name"] for q in json.loads(capsys.readouterr().out)] == ["first", "second"]
    assert cli.main(["info", str(asked)]) == 0
    assert "antiphon demo --list" in capsys.readouterr().out


def test_the_demo_names_what_is_missing(asked, capsys):
    assert demo() == 1
    assert "no recorded questions" in one_error(capsys)
    assert demo("--bundle", asked, "--question", "third") == 1
    assert "no question 'third'" in one_error(capsys)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a/b": {"text": ""}}', '{"a": {}}', '{"a": {"text": 1}}', '{"a": 1}']
)
def test_a_broken_list_of_questions_is_refused(text, asked, capsys):
    (asked / "questions" / "questions.json").write_text(text)
    assert demo("--bundle", asked) == 1
    assert "questions.json: not a list of questions" in one_error(capsys)
