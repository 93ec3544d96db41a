"""The language model on real engines with random weights, against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_bundle import LM, TOKENS, write_bundle

from antiphon.export.lm_graph import build_branch, build_trunk
from antiphon.export.reference.config import LMConfig
from antiphon.export.reference.lm import KV, MossSpeechLM, rotate
from antiphon.quant.schemes import FP32
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import CapacityError, ConfigError
from antiphon.runtime.lm import LanguageModel, rope_frequencies

CONFIG = LMConfig(
    vocab_size=LM.text_vocab,
    audio_vocab_size=LM.audio_vocab,
    hidden_size=LM.hidden_size,
    intermediate_size=96,
    num_hidden_layers=LM.shared_layers + LM.modality_layers,
    num_shared_layers=LM.shared_layers,
    num_modality_layers=LM.modality_layers,
    num_attention_heads=4,
    num_key_value_heads=LM.kv_heads,
    head_dim=LM.head_dim,
    rope_theta=LM.rope_theta,
    modality_pad_token_id=TOKENS.modality_pad,
)
Rows = NDArray[np.int64]


@pytest.fixture(scope="session")
def reference() -> MossSpeechLM:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = MossSpeechLM(CONFIG).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "norm" not in name:
            weight.normal_(0, 0.15)  # attention that depends on what it sees
    return model


@pytest.fixture(scope="session")
def bundle(reference: MossSpeechLM, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("lm")
    weights = {name: value.numpy() for name, value in reference.state_dict().items()}
    read = weights.__getitem__
    build_trunk(CONFIG, read, FP32, folder / "trunk.onnx")
    build_branch(CONFIG, "audio", read, FP32, folder / "speech_branch.onnx")
    build_branch(CONFIG, "text", read, FP32, folder / "text_branch.onnx")
    tables = {
        "text": weights["model.embed_tokens.weight"],
        "audio": weights["model.audio_embed.weight"],
    }
    return Bundle.open(write_bundle(folder, tables=tables))


@pytest.fixture(scope="session")
def plain(bundle: Bundle) -> LanguageModel:
    """Large enough never to forget."""
    return LanguageModel(bundle, capacity=512, exact=True)


@pytest.fixture(scope="session")
def small(bundle: Bundle) -> LanguageModel:
    """Forgets after 40 rows, keeps the first 5."""
    return LanguageModel(bundle, capacity=40, pinned=5, chunk=6, exact=True)


def some_rows(count: int, seed: int = 0) -> Rows:
    """Text and speech, mixed."""
    rng = np.random.default_rng(seed)
    rows = np.stack((rng.integers(0, 90, count), rng.integers(0, 33, count)), axis=1)
    rows[rng.random(count) < 0.5, 0] = TOKENS.modality_pad
    return rows


def expected(reference: MossSpeechLM, rows: Rows) -> tuple[NDArray, NDArray]:
    """Speech and text logits after each row."""
    text, audio = reference(torch.from_numpy(rows)[None])
    return audio[0].numpy(), text[0].numpy()


def close(got: NDArray, exact: NDArray) -> None:
    np.testing.assert_allclose(got, exact, atol=1e-4)


def cut(rows: Rows, cuts: list[int]) -> list[Rows]:
    return np.split(rows, sorted(c % (len(rows) + 1) for c in cuts))


CUTS = st.lists(st.integers(0, 100), max_size=8)


@given(cuts=CUTS, asked=st.lists(st.sampled_from(["speech", "text", "both", "none"]), max_size=9))
@settings(max_examples=25)
def test_any_prefill_and_any_sleep_equals_the_reference(
    reference: MossSpeechLM, plain: LanguageModel, cuts: list[int], asked: list[str]
) -> None:
    rows = some_rows(40)
    speech, text = expected(reference, rows)
    plain.reset()
    for piece, who in zip(cut(rows, cuts), [*asked, *["none"] * 9], strict=False):
        plain.prefill(piece)
        if plain.length and who in ("speech", "both"):
            close(plain.speech_logits(), speech[plain.length - 1])
        if plain.length and who in ("text", "both"):
            close(plain.text_logits(), text[plain.length - 1])
    assert plain.length == len(rows)
    assert (plain.history.rows == rows).all()
    close(plain.speech_logits(), speech[-1])
    close(plain.text_logits(), text[-1])


def test_a_sleeping_branch_runs_nothing(plain: LanguageModel) -> None:
    plain.reset()
    plain.prefill(some_rows(100))
    assert plain.owed == 100
    plain.speech_logits()
    assert plain._text.ring.length == 0
    for row in some_rows(5):
        plain.append(tuple(row))
        plain.speech_logits()
    assert plain.owed == 105
    assert plain.pay(rows=30) == 30
    assert plain.owed == 75
    assert plain.pay() == 75
    assert plain.owed == 0
    assert plain.pay() == 0


@given(
    data=st.data(),
    first=st.integers(1, 30),
    undone=st.integers(1, 30),
    sleepy=st.sampled_from(["speech", "text", "both", "none"]),
)
@settings(max_examples=25)
def test_rewound_rows_were_never_run(
    reference: MossSpeechLM,
    plain: LanguageModel,
    data: st.DataObject,
    first: int,
    undone: int,
    sleepy: str,
) -> None:
    rows = some_rows(first)
    plain.reset()
    plain.prefill(rows)
    if sleepy != "none":
        plain.text_logits()
    plain.prefill(some_rows(undone, seed=1))
    if sleepy in ("speech", "both"):
        plain.text_logits()
    if sleepy in ("text", "both"):
        plain.speech_logits()
    plain.rewind(undone)
    assert plain.length == len(plain.history) == first
    if data.draw(st.booleans()):
        rows = np.concatenate((rows, some_rows(4, seed=2)))
        plain.prefill(rows[first:])
    speech, text = expected(reference, rows)
    close(plain.speech_logits(), speech[-1])
    close(plain.text_logits(), text[-1])


def test_logits_are_computed_once(plain: LanguageModel) -> None:
    plain.reset()
    plain.prefill(some_rows(3))
    assert plain.speech_logits() is plain.speech_logits()


def test_everything_can_be_rewound(reference: MossSpeechLM, plain: LanguageModel) -> None:
    plain.reset()
    plain.prefill(some_rows(9))
    plain.text_logits()
    plain.rewind(9)
    assert plain.length == 0
    plain.prefill(some_rows(4, seed=3))
    close(plain.text_logits(), expected(reference, some_rows(4, seed=3))[1][-1])


def window_reference(
    reference: MossSpeechLM, rows: Rows, ring: tuple[int, int]
) -> tuple[NDArray, NDArray]:
    """Logits after each row when only the pinned rows and the last `window` ones are seen."""
    window, pinned = ring
    i = torch.arange(len(rows))
    seen = (i[None] <= i[:, None]) & ((i[None] > i[:, None] - window) | (i[None] < pinned))

    def attend(q, k, v, **_: object):
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        scores = (q @ k.mT) / q.shape[-1] ** 0.5
        return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
        return expected(reference, rows)


@given(cuts=CUTS, asked=st.lists(st.sampled_from(["speech", "text", "none"]), max_size=9))
@settings(max_examples=15)
def test_a_full_ring_is_a_window_and_the_sleeping_branch_sees_the_same(
    reference: MossSpeechLM, small: LanguageModel, cuts: list[int], asked: list[str]
) -> None:
    rows = some_rows(100)
    ring = small._trunk.ring
    speech, text = window_reference(reference, rows, (ring.window, ring.pinned))
    small.reset()
    for piece, who in zip(cut(rows, cuts), [*asked, *["none"] * 9], strict=False):
        small.prefill(piece)
        if small.length and who == "speech":
            close(small.speech_logits(), speech[small.length - 1])
        if small.length and who == "text":
            close(small.text_logits(), text[small.length - 1])
    assert small.owed <= small._capacity - ring.pinned
    close(small.speech_logits(), speech[-1])
    close(small.text_logits(), text[-1])


@given(before=st.integers(1, 80), undone=st.integers(1, 6), asked=st.booleans())
@settings(max_examples=15)
def test_a_chunk_can_be_rewound_in_a_full_ring(
    reference: MossSpeechLM, small: LanguageModel, before: int, undone: int, asked: bool
) -> None:
    rows = some_rows(before)
    ring = small._trunk.ring
    small.reset()
    small.prefill(rows)
    small.prefill(some_rows(undone, seed=1))
    if asked:
        small.text_logits()
    small.rewind(undone)
    speech, text = window_reference(reference, rows, (ring.window, ring.pinned))
    close(small.speech_logits(), speech[-1])
    close(small.text_logits(), text[-1])


def test_rewinding_into_overwritten_rows_is_refused(small: LanguageModel) -> None:
    small.reset()
    small.prefill(some_rows(80))
    with pytest.raises(CapacityError, match="cannot rewind 8 of 80 rows: 7 are still whole"):
        small.rewind(8)
    assert small.length == len(small.history) == 80


def closed_ranks(past: list[KV], drop: slice) -> list[KV]:
    """A cache without the rows `drop`; the rows behind them move up to their positions."""
    count = drop.stop - drop.start
    half = torch.from_numpy(rope_frequencies(CONFIG.head_dim, CONFIG.rope_theta) * -count)
    angle = torch.cat((half, half)).float()
    moved = []
    for k, v in past:
        later = rotate(k[:, :, drop.stop :], angle.cos(), angle.sin())
        v = torch.cat((v[:, :, : drop.start], v[:, :, drop.stop :]), dim=2)
        moved.append((torch.cat((k[:, :, : drop.start], later), dim=2), v))
    return moved


@given(steps=st.lists(st.tuples(st.integers(6, 12), st.integers(0, 6)), min_size=1, max_size=5))
@settings(max_examples=15)
def test_evicting_is_like_closing_ranks(
    reference: MossSpeechLM, small: LanguageModel, steps: list[tuple[int, int]]
) -> None:
    caches: list[list[KV]] = [[], [], []]
    small.reset()
    for seed, (count, evicted) in enumerate(steps):
        rows = some_rows(count, seed)
        ring = small._trunk.ring
        before = ring.evicted
        evicted = max(evicted, count - small.free)
        small.evict(max(0, min(evicted, small.length - ring.first)))
        if ring.evicted > before:
            drop = slice(5, 5 + ring.evicted - before)
            caches = [closed_ranks(cache, drop) for cache in caches]
        small.prefill(rows)
        hidden = reference.embed(torch.from_numpy(rows)[None])
        hidden, caches[0] = reference.model.shared_block(hidden, caches[0] or None)
        audio, caches[1] = reference.audio_logits(hidden, caches[1] or None)
        text, caches[2] = reference.text_logits(hidden, caches[2] or None)
        close(small.speech_logits(), audio[0, -1].numpy())
    close(small.text_logits(), text[0, -1].numpy())


def test_room_is_made_by_whole_turns(small: LanguageModel) -> None:
    small.reset()
    small.prefill(some_rows(5))
    for size in (8, 7, 9):
        small.begin_turn()
        small.prefill(some_rows(size))
    small.begin_turn()
    assert small.free == 29 - 24
    assert small.make_room(5) == 0
    assert small.make_room(6) == 8
    assert small.free == 13
    assert small.make_room(1000) == 16
    assert small.free == 29
    small.prefill(some_rows(20))
    assert small.make_room(1000) == 0, "the turn that is under way stays"
    small.rewind(20)
    with pytest.raises(CapacityError, match="0 are still whole"):
        small.rewind(1)


def test_nothing_is_left_behind_a_reset(reference: MossSpeechLM, small: LanguageModel) -> None:
    small.reset()
    small.prefill(some_rows(60))
    small.reset()
    rows = some_rows(70, seed=4)
    small.prefill(rows)
    ring = small._trunk.ring
    speech, _ = window_reference(reference, rows, (ring.window, ring.pinned))
    close(small.speech_logits(), speech[-1])


def test_memory_starts_small(bundle: Bundle) -> None:
    model = LanguageModel(bundle, exact=True)
    assert model.free > 0
    rows = (LM.shared_layers + 2 * LM.modality_layers) * 2 * LM.kv_heads * LM.head_dim * 4
    assert model.nbytes == 256 * rows, "256 rows were trained on"


def test_impossible_sizes_are_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="a ring of 6 rows cannot pin 5, write 2 at once"):
        LanguageModel(bundle, capacity=6, pinned=5)


def test_forgotten_turns_are_not_penalised(small: LanguageModel) -> None:
    rows = np.stack((np.arange(30), np.arange(30)), axis=1)
    small.reset()
    small.prefill(rows)
    small.evict(10)
    assert np.flatnonzero(small.history.seen(0)).tolist() == [*range(5), *range(15, 30)]
    small.rewind(15)
    assert np.flatnonzero(small.history.seen(0)).tolist() == list(range(5))


def test_what_is_not_a_number_ends_with_the_conversation(
    reference: MossSpeechLM, plain: LanguageModel
) -> None:
    plain.reset()
    plain.prefill(some_rows(9))
    plain.speech_logits()
    plain.text_logits()
    for stage in plain._stages:
        for buffer in stage.ring.buffers.values():
            buffer.numpy()[:] = np.nan
    plain.reset()
    rows = some_rows(4)
    plain.prefill(rows)
    close(plain.speech_logits(), expected(reference, rows)[0][-1])
    close(plain.text_logits(), expected(reference, rows)[1][-1])
