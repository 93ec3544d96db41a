"""Ids, prompts, sampling and voices of a checkpoint: read, completed, or refused by name."""

import json
from dataclasses import asdict, replace

import lookalike
import numpy as np
import pytest

from antiphon.export import checkpoint_facts as facts
from antiphon.export.reference.config import FlowConfig, LMConfig
from antiphon.runtime.errors import AntiphonError, ConfigError, CorruptFile
from antiphon.runtime.manifest import Prompts
from antiphon.runtime.prompt import SPOKEN_PROMPT, TEXT_PROMPT

CONFIG = LMConfig.from_json(lookalike.SIZES.lm_config())


@pytest.fixture
def write_tokenizer(tmp_path):
    path = tmp_path / "tokenizer.json"

    def write(added):
        path.write_text(json.dumps({"added_tokens": added}))
        return path

    return write


def added(ids):
    return [{"id": number, "content": text} for text, number in ids.items()]


def test_published_ids(write_tokenizer):
    path = write_tokenizer(added(lookalike.ADDED_TOKENS))
    assert asdict(facts.special_ids(path, CONFIG)) == {
        "endoftext": 151643,
        "im_start": 151644,
        "im_end": 151645,
        "sosp": 151646,
        "modality_pad": 151667,
        "eosp": 16384,
        "audio_pad": 512,
    }


@pytest.mark.parametrize("field", ["sosp_token_id", "modality_pad_token_id"])
def test_ids_that_contradict_the_config_are_refused(write_tokenizer, field):
    path = write_tokenizer(added(lookalike.ADDED_TOKENS))
    with pytest.raises(ConfigError, match=field):
        facts.special_ids(path, replace(CONFIG, **{field: 151660}))


def test_the_modality_pad_may_have_another_name(write_tokenizer):
    ids = {text.replace("think", "pad"): i for text, i in lookalike.ADDED_TOKENS.items()}
    assert facts.special_ids(write_tokenizer(added(ids)), CONFIG).modality_pad == 151667


@pytest.mark.parametrize("missing", ["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
def test_a_missing_token_is_named(write_tokenizer, missing):
    ids = {text: i for text, i in lookalike.ADDED_TOKENS.items() if text != missing}
    with pytest.raises(ConfigError) as caught:
        facts.special_ids(write_tokenizer(added(ids)), CONFIG)
    assert missing in str(caught.value)


@pytest.mark.parametrize("tokens", [None, [], [{"id": "x", "content": "y"}], [3], 5])
def test_a_tokenizer_without_added_tokens_is_refused(write_tokenizer, tokens):
    with pytest.raises(AntiphonError, match=r"tokenizer\.json"):
        facts.special_ids(write_tokenizer(tokens), CONFIG)


def test_sampling_defaults(tmp_path):
    path = tmp_path / "config.json"
    defaults = facts.sampling(path, {})
    assert asdict(defaults) == {  # contract C.3, first column
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": 20,
        "repetition_penalty": 1.1,
        "max_new_tokens": 500,
        "min_new_tokens": 0,
    }
    published = {"temperature": 0.7, "eos_token_id": [1, 2], "top_k": None}
    (tmp_path / "generation_config.json").write_text(json.dumps(published))
    assert facts.sampling(path, {}) == replace(defaults, temperature=0.7)
    published = {"do_sample": False, "temperature": 0.0, "top_k": 0}  # 0: of all
    (tmp_path / "generation_config.json").write_text(json.dumps(published))
    greedy = facts.sampling(path, {})
    assert greedy == replace(defaults, do_sample=False, top_k=greedy.top_k)
    assert greedy.top_k >= 151_680
    (tmp_path / "generation_config.json").unlink()
    own = {"temperature": 0.9, "top_k": 5}
    assert facts.sampling(path, {"sampling": own}) == replace(defaults, **own)


@pytest.mark.parametrize("sampling", [[], {"heat": 1}, {"top_k": "many"}, {"top_p": 2}])
def test_unusable_sampling_is_refused(tmp_path, sampling):
    with pytest.raises(ConfigError, match="sampling") as caught:
        facts.sampling(tmp_path / "config.json", {"sampling": sampling})
    assert "export the bundle" not in str(caught.value)


def test_prompts(tmp_path):
    own = {"speech": "Speak.", "text": "Write."}
    official = facts.prompts(tmp_path, {})
    assert (official.spoken, official.text) == (SPOKEN_PROMPT, TEXT_PROMPT)
    assert facts.prompts(tmp_path, {"prompts": own}) == Prompts(spoken="Speak.", text="Write.")
    for wrong in ({"speech": "Speak."}, own | {"text": 3}, "Speak."):
        with pytest.raises(ConfigError, match="prompts"):
            facts.prompts(tmp_path, {"prompts": wrong})


def test_official_prompts_are_ascii():
    assert all(text.isascii() and text.endswith(".") for text in facts.PROMPTS.values())
    assert len(facts.PROMPTS["speech"].split()) == 13
    assert len(facts.PROMPTS["text"].split()) == 11


def voice(p=10, **changes):
    arrays = {
        "prompt_codes": np.arange(p, dtype=np.int64),
        "prompt_mel": np.zeros((80, 4 * p), np.float32),
        "embedding": np.ones(192, np.float32),
    }
    return arrays | changes


def read(path):
    return facts.read_voice(path, FlowConfig(), 16384)


@pytest.mark.parametrize("p", [0, 10])
def test_a_voice_is_read_as_stored(tmp_path, p):
    path = tmp_path / "ann.npz"
    np.savez(path, **voice(p))
    found = asdict(read(path))
    assert found.keys() == voice().keys()
    for name, array in voice(p).items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_mel": np.zeros((80, 39), np.float32)}, "prompt_mel"),
        ({"prompt_codes": np.arange(10, dtype=np.int32)}, "prompt_codes is int32"),
        ({"prompt_codes": np.full(10, 16384)}, "16383"),
        ({"prompt_codes": np.full(10, -1)}, "16383"),
        ({"prompt_codes": np.array(3)}, "prompt_codes is int64"),
        ({"embedding": np.ones(192)}, "embedding is float64"),
        ({"embedding": np.full(192, np.nan, np.float32)}, "finite"),
        ({"embedding": np.array([{}])}, "not a voice"),
        ({"name": np.array("anna")}, "not a voice"),
    ],
)
def test_an_unusable_voice_is_refused(tmp_path, changes, message):
    path = tmp_path / "bad.npz"
    np.savez(path, **voice(**changes))
    with pytest.raises(CorruptFile, match=message) as caught:
        read(path)
    assert str(caught.value).endswith("; enrol it again")
    assert str(path.parent) in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY"])
def test_a_voice_that_is_no_archive_is_refused(tmp_path, data):
    path = tmp_path / "bad.npz"
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match="bad"):
        read(path)
    with pytest.raises(CorruptFile, match="absent"):
        read(tmp_path / "absent.npz")
