"""The CUDA provider against the CPU's: the same bundle, the same conversation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from antiphon.export import pipeline
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.session import Session
from antiphon.runtime.session_config import SessionConfig

pytestmark = pytest.mark.gpu

QUESTION = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def bundles(
    random_bundle: Bundle, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[Bundle]:
    """One checkpoint exported for both."""
    checkpoint, out = random_bundle.path.parent / "checkpoint", tmp_path_factory.mktemp("targets")
    targets = ("cpu", "cuda")
    with patch.object(pipeline, "measure", lambda *_: {}):  # the parity report takes longest
        for target in targets:
            pipeline.export(
                checkpoint, out / target, target=target, weights=request.param, noise_frames=1200
            )
    return [Bundle.open(Path(out / target)) for target in targets]


@pytest.mark.parametrize("answer", ["speech", "text"])
def test_a_conversation_longer_than_the_ring(bundles: list[Bundle], answer: str) -> None:
    """Rewinding, evicting and turning pinned keys happen in the memory of the card."""
    said = []
    for bundle in bundles:
        sampling = replace(bundle.manifest.sampling, do_sample=False, max_new_tokens=20)
        config = SessionConfig(reply=answer, sampling=sampling, capacity_rows=128, chunk_rows=8)
        session, replies = Session(bundle, config), []
        for turn in range(6):
            if turn % 2:
                session.say(f"question {turn}")
            else:
                session.listen(QUESTION)
                session.end_turn(commit=False)
                while turn % 4 and session.step().value != "wait":
                    pass
                session.end_turn()
            replies.append(session.run_reply())
        assert session.length > 128
        said.append(replies)
    for cpu, cuda in zip(*said, strict=True):
        assert (cuda.codes, cuda.text) == (cpu.codes, cpu.text)
        np.testing.assert_allclose(cuda.pcm, cpu.pcm, atol=1e-3)
