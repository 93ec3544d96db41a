"""A checkpoint becomes a bundle the runtime opens: whole or absent, and its numbers are right."""

import json
import shutil
from collections import namedtuple
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_checkpoint import SPECIAL, make_checkpoint, save_tokenizer

from antiphon.export import budget, engines, parity, pipeline, writer
from antiphon.export.budget import bundle_bytes, parity_bytes
from antiphon.export.checkpoint import Checkpoint
from antiphon.export.inspect import inspect
from antiphon.export.pipeline import export
from antiphon.export.plan import Plan
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import (
    AntiphonError,
    BundleError,
    CapacityError,
    ConfigError,
    CorruptFile,
)
from antiphon.runtime.flow import FlowDecoder
from antiphon.runtime.lm import LanguageModel
from antiphon.runtime.manifest import ENGINES
from antiphon.runtime.session import Session
from antiphon.runtime.vocoder import Vocoder
from antiphon.runtime.voice import SpeechDecoder
from benchmarks.lookalike import Numbers, write_speaker

NOISE = 200
LM_JSON = "MOSS-Speech/config.json"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """Bundles of the two main schemes."""
    folder = tmp_path_factory.mktemp("bundles")
    for weights in ("fp32", "int8"):
        export(checkpoint, folder / weights, weights=weights, noise_frames=NOISE)
    return {weights: Bundle.open(folder / weights) for weights in ("fp32", "int8")}


def parity_of(bundle):
    """Measures by engine, as the manifest states them."""
    return {name: entry.parity for name, entry in bundle.manifest.engines.items()}


def test_float_engines_equal_the_reference(exported):
    measures = parity_of(exported["fp32"])
    assert measures.keys() == set(ENGINES)
    assert measures.pop("encoder") == {"code_agreement": 1.0, "codes": 20.0}
    assert max(m["max_abs_error"] for m in measures.values()) < 2e-5


def test_int8_engines_are_near_the_reference(exported):
    measures = parity_of(exported["int8"])
    assert measures["encoder"]["code_agreement"] >= 0.9
    assert 35 < measures["speech_branch"]["sqnr_db"] < 60
    assert min(m["sqnr_db"] for name, m in measures.items() if name != "encoder") > 35


def test_manifest_states_the_model(exported, checkpoint):
    m = exported["int8"].manifest
    assert (m.name, m.target, m.weights) == ("int8", "cpu", "int8")
    assert asdict(m.lm) == {
        "text_vocab": 96,
        "audio_vocab": 48,
        "hidden_size": 64,
        "head_dim": 16,
        "kv_heads": 2,
        "shared_layers": 2,
        "modality_layers": 1,
        "rope_theta": 1e6,
        "context_rows": 10240,
    }
    assert (m.tokens.endoftext, m.tokens.sosp, m.tokens.eosp, m.tokens.audio_pad) == (91, 94, 32, 5)
    assert (m.encoder.mel_bins, m.encoder.code_count) == (80, 32)
    assert (m.flow.chunk_tokens, m.vocoder.samples_per_frame) == (5, 480)
    assert m.engines["trunk"].scheme == "int8"
    assert m.engines["vocoder"].scheme == "fp16"
    assert m.engines["trunk"].data[0].file == "trunk.data"
    assert m.prompts == Checkpoint.open(checkpoint).prompts


def test_a_checkpoint_may_state_its_context_and_loudness(checkpoint, tmp_path, unmeasured):
    copy = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, copy)
    for path, key, value in (
        ("MOSS-Speech/config.json", "max_position_embeddings", 700),
        ("MOSS-Speech-Codec/preprocessor_config.json", "log_mel_max", 1.5),
    ):
        raw = json.loads((copy / path).read_text()) | {key: value}
        (copy / path).write_text(json.dumps(raw))
    m = export(copy, tmp_path / "out", noise_frames=NOISE)
    assert (m.lm.context_rows, m.log_mel_max) == (700, 1.5)


@pytest.mark.parametrize("changes", [{"audio_pad_token_id": 512}, {"max_position_embeddings": 144}])
def test_an_odd_language_model_talks(changes, checkpoint, tmp_path, unmeasured):
    """The audio pad needs no row; a context of hardly more than the system turn is one too."""
    copy = shutil.copytree(checkpoint, tmp_path / "odd")
    edit_json(copy / LM_JSON, sampling={"max_new_tokens": 4, "min_new_tokens": 4}, **changes)
    export(copy, tmp_path / "bundle", weights="fp32", noise_frames=NOISE)
    session = Session(Bundle.open(tmp_path / "bundle"))
    session.listen(np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32))
    assert session.run_reply().codes
    kept = session.conversation
    session.restore(kept)
    assert np.array_equal(session.conversation.rows, kept.rows)


def test_tables_hold_what_the_checkpoint_holds(exported, checkpoint):
    bundle, source = exported["fp32"], Checkpoint.open(checkpoint)
    grid = np.array([[7, 5], [95, 31], [95, 0]])
    rows = bundle.embeddings.rows(grid)
    np.testing.assert_array_equal(rows[0], source.read("lm", "model.embed_tokens.weight")[7])
    np.testing.assert_array_equal(rows[1:], source.read("lm", "model.audio_embed.weight")[[31, 0]])
    voice, original = bundle.voice("anna"), source.voices["anna"]
    for name, array in asdict(original).items():
        np.testing.assert_array_equal(getattr(voice, name), array)
    assert bundle.tokenizer_path.read_bytes() == source.tokenizer_json.read_bytes()
    assert bundle.noise.shape == (80, NOISE)
    exact = [-1.1258398, -1.1523602, -0.2505786, -0.4338792]  # contract E.6
    np.testing.assert_allclose(bundle.noise[0, :4], exact, atol=1e-6)  # processors differ


def test_the_runtime_computes_what_the_reference_does(exported, checkpoint):
    reference, bundle = Checkpoint.open(checkpoint).reference(), exported["fp32"]
    grid = np.array([[7, 5], [8, 5], [95, 31], [95, 0], [95, 4], [9, 5]])
    lm = LanguageModel(bundle)
    lm.prefill(grid)
    text, audio = reference.lm(torch.from_numpy(grid)[None])
    np.testing.assert_allclose(lm.text_logits(), text[0, -1], atol=1e-5)
    np.testing.assert_allclose(lm.speech_logits(), audio[0, -1], atol=1e-5)
    voice = bundle.voice()
    prompt = [torch.from_numpy(a) for a in (voice.prompt_codes, voice.prompt_mel, voice.embedding)]
    codes = np.arange(11)
    exact = reference.flow.generate(torch.from_numpy(codes), tuple(prompt), chunk=5)
    flow = FlowDecoder(bundle)
    mel = np.concatenate((flow.push(codes), flow.finish()), axis=1)
    np.testing.assert_allclose(mel, exact.numpy(), atol=1e-4)
    decoder = SpeechDecoder(flow, Vocoder(bundle))
    pcm = np.concatenate((decoder.push(codes), decoder.finish()))
    assert len(pcm) == 1920 * 11
    assert np.isfinite(pcm).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_every_graph_is_valid(exported, engine):
    for bundle in exported.values():
        onnx.checker.check_model(str(bundle.path / f"{engine}.onnx"), full_check=True)


def test_every_graph_keeps_to_the_dialect(exported):
    paths = [bundle.path / f"{engine}.onnx" for bundle in exported.values() for engine in ENGINES]
    for model in (onnx.load(path, load_external_data=False) for path in paths):
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 24)]
        assert model.ir_version == 11
        scatters = [n for n in model.graph.node if n.op_type == "TensorScatter"]
        modes = {a.s for n in scatters for a in n.attribute if a.name == "mode"}
        assert modes <= {b"linear"}  # also the default


def test_four_bits_are_for_the_layers_of_the_language_model(checkpoint, tmp_path, unmeasured):
    manifest = export(checkpoint, tmp_path / "out", weights="int4_b32", noise_frames=NOISE)
    schemes = {name: engine.scheme for name, engine in manifest.engines.items()}
    assert schemes["trunk"] == "int4_b32+int8"  # the value projections
    assert schemes["text_branch"] == schemes["speech_branch"] == "int4_b32+int8"
    assert schemes["encoder"] == schemes["flow_step"] == "int8"
    assert schemes["vocoder"] == "fp16"


def test_a_recipe_of_ones_own_is_followed(checkpoint, tmp_path, unmeasured):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        '[[rules]]\nmatch = "*.mlp.down_proj.weight"\nscheme = "int8_row"\n'
        '[[rules]]\nmatch = "trunk/*"\nscheme = "int4_b32"\nmethod = "mse"\n'
        '[[rules]]\nmatch = "tables/*embed_tokens*"\nscheme = "int8"\n'
        '[[rules]]\nmatch = "*"\nscheme = "fp16"\n'
    )
    manifest = export(checkpoint, tmp_path / "out", weights=recipe, noise_frames=NOISE)
    assert manifest.weights == "mine"
    assert manifest.engines["trunk"].scheme == "int4_b32+int8_row"
    assert manifest.engines["encoder"].scheme == "fp16"
    graph = onnx.load(tmp_path / "out" / "trunk.onnx", load_external_data=False).graph
    codes = {t.name: t.data_type for t in graph.initializer if t.name.endswith(".codes")}
    prefix = "model.shared_block.layers.1"
    assert codes[f"{prefix}.mlp.down_proj.codes"] == onnx.TensorProto.INT8
    assert codes[f"{prefix}.mlp.up_proj.codes"] == onnx.TensorProto.INT4
    source, bundle = Checkpoint.open(checkpoint), Bundle.open(tmp_path / "out")
    exact = source.read("lm", "model.embed_tokens.weight")
    assert bundle.embeddings.text.rows.dtype == np.int8
    rows = bundle.embeddings.rows(np.array([[7, 5], [90, 5]]))
    np.testing.assert_allclose(rows, exact[[7, 90]], atol=np.abs(exact[[7, 90]]).max() / 254 * 1.01)
    assert bundle.embeddings.audio.rows.dtype == np.float16


@pytest.mark.parametrize("weights", ["fp32", "int8", "int4_b32"])
def test_the_size_is_bounded_beforehand(weights, checkpoint, tmp_path, unmeasured):
    export(checkpoint, tmp_path / "out", weights=weights, noise_frames=NOISE)
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    source = Checkpoint.open(checkpoint)
    bound = bundle_bytes(source, Plan.make(source, weights, "cpu"), NOISE)
    voices = (tmp_path / "out" / "voices" / "anna.npz").stat().st_size
    assert size - voices <= bound


def test_the_same_checkpoint_gives_the_same_bytes(exported, checkpoint, tmp_path):
    export(checkpoint, tmp_path / "int8", noise_frames=NOISE)
    files = {p.relative_to(tmp_path / "int8") for p in (tmp_path / "int8").rglob("*.*")}
    assert Path("manifest.json") in files
    for name in files:
        assert (tmp_path / "int8" / name).read_bytes() == (
            exported["int8"].path / name
        ).read_bytes()


# whole or absent


@pytest.fixture
def unmeasured(monkeypatch):
    """Skip the parity report, which takes most of the time."""
    monkeypatch.setattr(pipeline, "measure", lambda *_: {})


class Told:
    """Progress that remembers."""

    def __init__(self):
        self.steps, self.counts, self.notes = [], [], []

    def step(self, *step):
        self.steps.append(step)

    def advance(self, done, total):
        self.counts.append((done, total))

    def note(self, text):
        self.notes.append(text)


def test_progress_names_every_step(checkpoint, tmp_path, unmeasured):
    told = Told()
    export(checkpoint, tmp_path / "out", noise_frames=NOISE, progress=told)
    assert told.steps == [(name, i, 9) for i, name in enumerate([*ENGINES, "tables", "parity"])]
    done, totals = zip(*told.counts, strict=True)
    assert set(totals) == {totals[0]}
    assert list(done) == sorted(done)
    assert 0.9 * totals[0] < done[-1] < 1.1 * totals[0]
    assert told.notes == []


@pytest.mark.parametrize("error", [CapacityError("full"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_new(error, checkpoint, tmp_path, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(pipeline, "measure", fail)
    with pytest.raises(type(error)):
        export(checkpoint, tmp_path / "out", noise_frames=NOISE)
    assert not (tmp_path / "out").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {".out.partial"}


def test_a_failure_before_anything_is_finished_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engines, "build_encoder", fail)
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint, tmp_path / "out", noise_frames=NOISE)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_bundle(checkpoint, tmp_path, unmeasured, monkeypatch):
    export(checkpoint, tmp_path / "out", noise_frames=NOISE)
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    monkeypatch.setattr(pipeline, "measure", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(checkpoint, tmp_path / "out", weights="fp32", noise_frames=NOISE)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    Bundle.open(tmp_path / "out")


def test_an_old_bundle_is_replaced_as_a_whole(checkpoint, tmp_path, unmeasured):
    export(checkpoint, tmp_path / "out", noise_frames=NOISE)
    (tmp_path / "out" / "stray").write_text("")
    export(checkpoint, tmp_path / "out", weights="fp32", noise_frames=NOISE)
    assert Bundle.open(tmp_path / "out").manifest.weights == "fp32"
    assert not (tmp_path / "out" / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_no_bundle_is_left_alone(checkpoint, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        export(checkpoint, tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "meow"


def test_a_file_in_the_way_is_left_alone(checkpoint, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        export(checkpoint, tmp_path / "out")


def test_a_full_disk_is_noticed_before_anything_is_written(checkpoint, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(CapacityError, match=r"0 MB free, the bundle needs up to \d+ MB more; make"):
        export(checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"weights": "q4_k"},
            r"weights: unknown 'q4_k'; the nearest is int4_b32; choose a recipe \(fp16, fp32",
        ),
        ({"target": "tpu"}, "target 'tpu': choose one of cpu"),
        ({"noise_frames": 0}, "noise_frames is 0, expected 1 to 15000"),
        ({"noise_frames": 15_001}, "noise_frames is 15001"),
        ({"jobs": -1}, "jobs is -1, expected 0 or more"),
        ({"weights": "int4_b64"}, r"down_proj\.weight \[64, 96\] cannot be int4_b64: .* int4_b32"),
    ],
)
def test_a_wrong_option_names_the_right_ones(options, message, checkpoint, tmp_path):
    with pytest.raises(ConfigError, match=message):
        export(checkpoint, tmp_path / "out", **options)


def test_a_checkpoint_without_a_voice_is_refused(checkpoint, tmp_path):
    copy = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, copy)
    shutil.rmtree(copy / "voices")
    with pytest.raises(ConfigError, match=r"voices: no voice; make one .* --voice NAME=FILE\.wav"):
        export(copy, tmp_path / "out")


@pytest.fixture
def unwritten(checkpoint, tmp_path, monkeypatch):
    """A copy of the checkpoint; nothing may be written for it."""
    monkeypatch.setattr(pipeline, "new_bundle", lambda *_: pytest.fail("began to write"))
    return shutil.copytree(checkpoint, tmp_path / "checkpoint")


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def damage_voice(folder, **members):
    path = folder / "voices" / "anna.npz"
    with np.load(path) as arrays:
        kept = dict(arrays)
    np.savez(path, **kept | members)


def fixed_speaker(folder):
    """A speaker encoder that hears two seconds and nothing else."""
    path = folder / "MOSS-Speech-Codec" / "flow" / "campplus.onnx"
    write_speaker(path, 4, Numbers())
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 200
    onnx.save(model, path)


def fewer_mel_bins(folder):
    """A vocoder for another flow."""
    path = folder / "MOSS-Speech-Codec" / "flow" / "hift.pt"
    state = torch.load(path)
    for layer in ("conv_pre", "f0_predictor.condnet.0"):
        name = f"{layer}.parametrizations.weight.original1"
        state[name] = state[name][:, :40].clone()
    torch.save(state, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: edit_json(f / LM_JSON, max_position_embeddings=0), "context_rows is 0"),
        (lambda f: edit_json(f / LM_JSON, rope_theta=0), "rope_theta is 0.0, expected 1 to"),
        (fewer_mel_bins, "the flow makes 80 mel bins, the vocoder takes 40"),
        (lambda f: edit_json(f / LM_JSON, sampling={"top_k": 0}), "top_k >= 1"),
        (lambda f: edit_json(f / LM_JSON, eosp_token_id=31), "ends its codes at 31"),
        (lambda f: edit_json(f / LM_JSON, eosp_token_id=33), "has 32 rows, .* 33 codes to say"),
        (lambda f: (f / "MOSS-Speech" / "tokenizer.json").unlink(), r"tokenizer\.json: missing"),
        (
            lambda f: edit_json(f / "MOSS-Speech" / "tokenizer.json", model={"type": "BPE"}),
            r"tokenizer\.json: not a tokenizer .*; download it again",
        ),
        (
            lambda f: save_tokenizer(f / "MOSS-Speech" / "tokenizer.json", 90, SPECIAL.values()),
            "has id 93, but sosp_token_id of config.json is 94; the two files belong to different",
        ),
        (
            lambda f: save_tokenizer(f / "MOSS-Speech" / "tokenizer.json", 91, SPECIAL.values(), 7),
            r"tokenizer\.json: knows 102 tokens, vocab_size of config\.json is 96; ",
        ),
        (fixed_speaker, r"campplus\.onnx: float32\[1, 200, 80\], .* is it the published"),
        (lambda f: (f / "voices/anna.npz").rename(f / "voices/Anna B.npz"), "'Anna B' cannot name"),
        (lambda f: (f / "voices/anna.npz").rename(f / f"voices/{'a' * 97}.npz"), "cannot name"),
        (lambda f: damage_voice(f, speaker=np.ones(3)), r"anna\.npz: not a voice.*enrol it again"),
        (lambda f: damage_voice(f, prompt_mel=np.ones((80, 1))), "prompt_mel is float64"),
    ],
)
def test_what_cannot_be_stated_is_refused_before_anything_is_written(damage, message, unwritten):
    """And `antiphon inspect` says the same."""
    damage(unwritten)
    with pytest.raises(AntiphonError, match=message) as refused:
        export(unwritten, unwritten.parent / "out")
    report = inspect(unwritten)
    assert not report.complete
    assert [str(refused.value)] == report.problems or report.missing


def test_a_bundle_that_does_not_open_is_not_kept(checkpoint, tmp_path, unmeasured, monkeypatch):
    monkeypatch.setattr(engines, "start_noise", lambda bins, frames: torch.zeros(bins - 1, frames))
    with pytest.raises(CorruptFile, match=r"flow_noise\.npy"):
        export(checkpoint, tmp_path / "out", noise_frames=NOISE)
    assert not (tmp_path / "out").exists()


def test_a_voice_may_have_no_prompt(checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    damage_voice(copy, prompt_codes=np.empty(0, np.int64), prompt_mel=np.empty((80, 0), np.float32))
    told = Told()
    export(copy, tmp_path / "out", noise_frames=NOISE, progress=told)
    bundle = Bundle.open(tmp_path / "out")
    measured = {name for name, found in parity_of(bundle).items() if found}
    assert measured == {"trunk", "speech_branch", "text_branch"}
    assert "not vocoder: no voice has a prompt" in told.steps[-1][0]
    decoder = SpeechDecoder(FlowDecoder(bundle), Vocoder(bundle))
    pcm = np.concatenate((decoder.push(np.arange(7)), decoder.finish()))
    assert len(pcm) == 1920 * 7


# memory


def test_what_does_not_fit_in_memory_is_not_measured(checkpoint, tmp_path, monkeypatch):
    source = Checkpoint.open(checkpoint)
    needed = parity_bytes(source, Plan.make(source, "fp32", "cpu"))
    free = sorted(needed.values())[3]
    left_out = {name for name, count in needed.items() if count > free}
    assert len(left_out) == 3
    monkeypatch.setattr(pipeline, "available_bytes", lambda: free)
    told = Told()
    out = tmp_path / "out"
    manifest = export(checkpoint, out, weights="fp32", noise_frames=NOISE, progress=told)
    assert {name for name, entry in manifest.engines.items() if not entry.parity} == left_out
    for name in left_out:
        assert f"not {name}: takes 0.0 GB of memory, 0.0 are free" in told.steps[-1][0]


def test_memory_is_counted_by_weight_and_scheme(checkpoint):
    source = Checkpoint.open(checkpoint)
    four = parity_bytes(source, Plan.make(source, "int4_b32", "cpu"))
    eight = parity_bytes(source, Plan.make(source, "int8", "cpu"))
    layer = 64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 96 + 2 * 64 + 2 * 16
    value = 0.95 * 64 * 32  # its projection has eight bits
    assert four["trunk"] == pytest.approx(2 * (layer + value), rel=0.03)  # vectors stay float32
    assert eight["trunk"] == pytest.approx(1.95 * 2 * layer, rel=0.03)
    assert four["text_branch"] == pytest.approx(layer + value + 1.95 * 96 * 64, rel=0.03)
    halves = parity_bytes(source, Plan.make(source, "fp16", "cpu"))
    flow = halves["flow_encoder"] + halves["flow_step"]
    assert flow == 5 * sum(source.value_counts("flow").values())


def test_parity_may_be_left_out(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "measure", lambda *_: pytest.fail("measured"))
    told = Told()
    manifest = export(checkpoint, tmp_path / "out", noise_frames=NOISE, parity=False, progress=told)
    assert not any(entry.parity for entry in manifest.engines.values())
    assert told.steps[-1][0] == "parity: not measured"


def test_memory_that_is_not_known_does_not_stop_anything(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "MEMORY", tmp_path / "meminfo")
    assert budget.available_bytes() is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   3 kB\n")
    assert budget.available_bytes() == 3072
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\n")
    assert budget.available_bytes() is None


def test_equal_arrays_have_no_noise():
    exact = np.ones(4)
    assert parity.compare(exact, exact) == {"max_abs_error": 0.0}
    assert parity.compare(exact, exact + 0.1) == pytest.approx(
        {"max_abs_error": 0.1, "sqnr_db": 20}, rel=1e-5
    )
