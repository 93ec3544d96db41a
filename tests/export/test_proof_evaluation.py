"""A bundle against its reference: what is damaged shows, and nothing else does."""

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from antiphon.export import pipeline
from antiphon.export.proof.charts import charts
from antiphon.export.proof.dialogues import Question, Respondent
from antiphon.export.proof.evaluation import check_same_model, evaluate
from antiphon.export.proof.page import page
from antiphon.export.proof.shadow import OUTPUTS
from antiphon.export.proof.svg import Axis, bars
from antiphon.export.proof.tables import tables
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import CapacityError, ConfigError

rng = np.random.default_rng(3)
QUESTIONS = [
    Question("noise", (0.1 * rng.standard_normal(8000)).astype("f4"), "Why?"),
    Question("written", None, "And then?"),
]


@pytest.fixture(scope="module")
def small(random_bundle, tmp_path_factory) -> Bundle:
    """The random model in eight bits."""
    out = tmp_path_factory.mktemp("proof") / "small"
    checkpoint = random_bundle.path.parent / "checkpoint"
    pipeline.export(checkpoint, out, weights="int8", noise_frames=1200, parity=False)
    return Bundle.open(out)


@pytest.fixture(scope="module")
def report(small, random_bundle):
    return evaluate(small, QUESTIONS, random_bundle)


def test_a_bundle_is_equal_to_itself(random_bundle):
    found = evaluate(random_bundle, QUESTIONS[:1], random_bundle)
    assert {e.noise for n, e in found.engines.items()} == {0}
    assert [name for name, e in found.engines.items() if not e.calls] == []
    for head in ("speech", "text"):
        assert found.head(head)["rows"] > 10
        assert found.head(head)["agreement"]["mean"] == 1
        assert found.head(head)["kl"]["mean"] == 0
        replies = found.replies(head)
        assert replies["same_reply"] == 1
        assert replies["unfinished"][0] == replies["unfinished"][1]
        assert replies["end_before"][0] == replies["end_before"][1]
    assert found.voice["mel_distance_db"]["mean"] == 0
    assert found.codes == [[1.0] * 7]  # 8000 samples


def test_eight_bits_lose_a_little_everywhere(report):
    facts = report.as_dict()
    engines = facts["engines"]
    assert engines.keys() == OUTPUTS.keys()
    for name, found in engines.items():
        if name == "encoder":
            assert found.keys() == {"calls", "agreement"}
        else:
            assert 15 < found["sqnr_db"] < 120, name
            assert 0.98 < found["cosine"] <= 1, name
    for head in facts["heads"].values():
        assert 0 < head["kl"]["low"] <= head["kl"]["mean"] <= head["kl"]["high"] < 1
        assert head["kl_median"] <= head["kl_p99"]
    assert 0 < facts["voice"]["mel_distance_db"]["mean"] < 12
    assert facts["dialogues"] == len(facts["exchanges"]) == 6
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def damaged(bundle: Bundle, name: str, output: str, noise: float) -> Bundle:
    """A bundle one engine of which is not what it should be."""
    whole, generator = Bundle(bundle.path, bundle.manifest), np.random.default_rng(0)
    load = whole.engine

    def engine(which: str, **settings):
        found = load(which, **settings)
        if which != name:
            return found
        run = found.run

        def off(feeds, caches=()):
            out = run(feeds, caches)
            extra = generator.standard_normal(out[output].shape)
            out[output] = out[output] + (noise * np.std(out[output]) * extra).astype("f4")
            return out

        found.run = off
        return found

    whole.engine = engine
    return whole


@pytest.mark.parametrize(("name", "output"), [("speech_branch", "logits"), ("flow_step", "x_out")])
def test_the_engine_at_fault_is_found(name, output, random_bundle):
    found = evaluate(damaged(random_bundle, name, output, 0.1), QUESTIONS[:1], random_bundle)
    ratios = {n: e.sqnr_db for n, e in found.engines.items() if e.noise}
    assert ratios == {name: pytest.approx(20, abs=1.5)}
    assert found.head("text")["kl"]["mean"] == 0
    assert (found.head("speech")["kl"]["mean"] > 0.01) == (name == "speech_branch")
    assert (found.voice["mel_distance_db"]["mean"] > 0) == (name == "flow_step")


def test_one_bundle_alone_is_described_not_compared(random_bundle):
    found = evaluate(random_bundle, QUESTIONS[1:])
    facts = found.as_dict()
    assert facts["reference"] is None
    assert facts.keys() & {"heads", "engines", "codes"} == set()
    assert found.digest() == {}
    assert facts["replies"]["speech"]["replies"] == 1
    assert len(tables(found)) == 3


def test_a_reply_read_again_gives_the_logits_it_was_drawn_from(random_bundle):
    model = Respondent(random_bundle)
    for answered in ("speech", "text"):
        dialogue, drawn = model.ask(QUESTIONS[0], "speech", answered)
        again = list(model.replay(dialogue))
        assert len(again) == dialogue.stop - dialogue.first
        for row, exact in zip(again, drawn, strict=True):
            np.testing.assert_allclose(row, exact, atol=2e-4)
        assert dialogue.complete or len(again) == 40  # the limit of this model


def test_a_question_that_does_not_fit_is_named(random_bundle):
    with pytest.raises(CapacityError, match="question long"):
        Respondent(random_bundle).ask(Question("long", None, "why " * 20000), "text", "text")


def test_nothing_to_ask_and_another_model_are_refused(random_bundle):
    with pytest.raises(ConfigError, match="--questions"):
        evaluate(random_bundle, [], random_bundle)
    with pytest.raises(ConfigError, match="neither a recording nor a text"):
        Question("empty")
    facts = random_bundle.manifest
    other = replace(facts, lm=replace(facts.lm, rope_theta=3e4))
    with pytest.raises(ConfigError, match=r"is no reference.*lm is .*rope_theta=30000"):
        check_same_model(random_bundle, SimpleNamespace(path="other", manifest=other))


def test_the_page_is_whole_and_needs_no_other_file(report):
    text = page(report)
    body = re.sub(r"<(meta|!doctype)[^>]*>", "", text)
    ElementTree.fromstring(body)  # every tag is closed, every name escaped
    assert not re.search(r"(src|href)=|url\(|@import", text)
    assert set(charts(report)) == {"bytes", "engines", "kl", "drift", "ends", "voice"}
    for table in tables(report):
        assert {len(row) for row in table.rows} == {len(table.head)}


def test_names_cannot_become_markup():
    assert "<b>" not in bars("<b>", {"<b>": 1.0}, "<b>")


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("", 0, 100), [0, 20, 40, 60, 80, 100]),
        (Axis("", 0, 0.37), [0, 0.1, 0.2, 0.3]),
        (Axis("", 1e-3, 1, log=True), [1e-3, 1e-2, 1e-1, 1]),
        (Axis("", 5, 5), [5]),
    ],
)
def test_ticks_are_round(axis, ticks):
    assert axis.ticks == pytest.approx(ticks)
    assert all(0 <= axis.at(tick) <= 1 for tick in ticks)


def test_the_digest_fits_into_a_manifest(report, small, tmp_path):
    digest = report.digest()
    assert digest["against"] == "fp32"
    assert {"speech_kl", "text_agreement", "codes_agreement", "mel_distance_db"} < digest.keys()
    copy = shutil.copytree(small.path, tmp_path / "copy")
    raw = replace(small.manifest, quality=digest).to_dict()
    (copy / "manifest.json").write_text(json.dumps(raw))
    assert Bundle.open(copy).manifest.quality == digest
