"""Rows of a prompt, against the worked example of contract B.3."""

from __future__ import annotations

import re

import numpy as np
import pytest

from antiphon.runtime.errors import ConfigError
from antiphon.runtime.manifest import SpecialTokens
from antiphon.runtime.prompt import SPOKEN_PROMPT, TEXT_PROMPT, PromptBuilder

TOKENS = SpecialTokens(
    endoftext=151643,
    im_start=151644,
    im_end=151645,
    sosp=151646,
    modality_pad=151667,
    eosp=16384,
    audio_pad=512,
)
# the real tokenizer's ids of the pieces that occur, contract B.1 and B.3
PIECES = {
    "<|im_start|>": [151644],
    "<|im_end|>": [151645],
    "<|object_ref_start|>": [151646],
    "\n": [198],
    "system": [8948],
    "user": [872],
    "assistant": [77091],
    SPOKEN_PROMPT: [
        *(2610, 525, 264, 10950, 7743, 17847, 13, 21806),
        *(279, 1196, 594, 4755, 448, 21355, 14507, 13),
    ],
    TEXT_PROMPT: [2610, 525, 264, 10950, 17847, 13, 21806, 279, 1196, 594, 4755, 448, 1467, 13],
    "My name is Alice and I like hiking.": [5050, 829, 374, 29405, 323, 358, 1075, 37364, 13],
}
SPLIT = re.compile("|".join(re.escape(piece) for piece in sorted(PIECES, key=len, reverse=True)))


def encode(text: str) -> list[int]:
    assert SPLIT.sub("", text) == "", f"a piece that training never saw: {text!r}"
    return [token for piece in SPLIT.findall(text) for token in PIECES[piece]]


@pytest.fixture
def prompt() -> PromptBuilder:
    return PromptBuilder(TOKENS, encode)


def padded(*ids: int) -> list[tuple[int, int]]:
    return [(i, 512) for i in ids]


QUESTION = [
    *padded(151645, 198, 151644, 872, 198, 151646),
    *((151667, code) for code in (2861, 10370, 11506, 16384)),
    *padded(151645, 198, 151644, 77091, 198),
]


def test_the_worked_example(prompt: PromptBuilder) -> None:
    rows = np.concatenate(
        (
            prompt.system(SPOKEN_PROMPT),
            prompt.user_open(),
            prompt.speech_rows([2861]),
            prompt.speech_rows(np.array([10370, 11506])),
            prompt.user_close_speech(),
            prompt.assistant_prefix(spoken=True),
        )
    )
    expected = [*padded(151644, 8948, 198, *PIECES[SPOKEN_PROMPT]), *QUESTION, (151646, 512)]
    assert rows.dtype == np.int64
    assert [tuple(row) for row in rows] == expected
    assert len(rows) == 35


def test_the_worked_example_with_a_text_reply(prompt: PromptBuilder) -> None:
    rows = np.concatenate(
        (
            prompt.system(TEXT_PROMPT),
            prompt.speech_turn("user", [2861, 10370, 11506]),
            prompt.assistant_prefix(spoken=False),
        )
    )
    expected = [*padded(151644, 8948, 198, *PIECES[TEXT_PROMPT]), *QUESTION]
    assert [tuple(row) for row in rows] == expected
    assert len(rows) == 32


def test_seven_rows_are_left_at_the_end_of_a_spoken_question(prompt: PromptBuilder) -> None:
    assert len(prompt.user_close_speech()) + len(prompt.assistant_prefix(spoken=True)) == 7
    assert len(prompt.user_close_speech()) + len(prompt.assistant_prefix(spoken=False)) == 6


def test_a_written_question(prompt: PromptBuilder) -> None:
    rows = prompt.text_turn("user", "My name is Alice and I like hiking.")
    ids = [151644, 872, 198, *PIECES["My name is Alice and I like hiking."], 151645, 198]
    assert [tuple(row) for row in rows] == padded(*ids)


def test_pieces_are_tokenized_separately() -> None:
    asked: list[str] = []

    def spy(text: str) -> list[int]:
        asked.append(text)
        return {"<|im_start|>": [151644], "<|im_end|>": [151645]}.get(text, [151646])

    PromptBuilder(TOKENS, spy).text_turn("user", "\n two")
    assert asked[3:] == ["<|im_start|>user\n", "\n two", "<|im_end|>\n"]


@pytest.mark.parametrize(
    ("last", "spoken", "ids"),
    [
        ((151667, 16384), True, [(151645, 512), (198, 512)]),
        ((151667, 7), True, [(151667, 16384), (151645, 512), (198, 512)]),
        ((151645, 512), True, [(198, 512)]),
        ((151645, 512), False, [(198, 512)]),
        ((1467, 512), False, [(151645, 512), (198, 512)]),
        ((151643, 512), False, [(151645, 512), (198, 512)]),
    ],
)
def test_every_reply_ends_as_the_template_does(
    prompt: PromptBuilder, last: tuple[int, int], spoken: bool, ids: list[tuple[int, int]]
) -> None:
    assert [tuple(row) for row in prompt.reply_rest(last, spoken)] == ids


def test_codes_outside_the_codebook_are_our_bug(prompt: PromptBuilder) -> None:
    for codes in ([-1], [16384]):
        with pytest.raises(AssertionError, match="not speech codes"):
            prompt.speech_rows(codes)
    assert prompt.speech_rows([]).shape == (0, 2)
    with pytest.raises(AssertionError, match="without codes"):
        prompt.speech_turn("user", [])


def test_a_foreign_tokenizer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"reads <\|im_start\|> as \[1, 2\], the manifest says"):
        PromptBuilder(TOKENS, lambda text: [1, 2])


def test_content_has_its_own_encoder() -> None:
    prompt = PromptBuilder(TOKENS, encode, lambda text: [7] * len(text))
    rows = prompt.text_turn("user", "<|im_end|>")
    assert [tuple(row) for row in rows] == padded(151644, 872, 198, *[7] * 10, 151645, 198)
    assert [tuple(row) for row in prompt.system("\n")][3:4] == padded(7)
