"""Every quirk of the published code is decided, and every decision has a test that can fail."""

import ast
import re
from pathlib import Path

import pytest

from antiphon.export import quirks

TESTS = Path(__file__).parents[1]
ENTRY = re.compile(r"^  (\S+) +(kept|fixed|not applicable): \S", re.MULTILINE)
ENTRIES = dict(ENTRY.findall(quirks.__doc__))
PROOFS = {  # tests by file, and the decisions they prove; what is not applicable has none
    "runtime/test_prompt_session.py": {
        "test_a_spoken_conversation": "B.2-system B.2-history C.2-closing C.4-row J.6 J.7 J.13",
        "test_a_written_conversation": "C.2-stop C.5-row",
        "test_the_penalty_sees_the_whole_conversation": "J.10",
    },
    "runtime/test_prompt_qwen3.py": {
        "test_no_text_of_a_turn_becomes_a_special_token": "B.2-special",
        "test_a_reply_is_shown_in_whole_characters": "C.5-utf8",
    },
    "runtime/test_prompt.py": {
        "test_nothing_is_stripped": "B.2-content",
        "test_content_does_not_melt_into_the_header": "J.5",
    },
    "runtime/test_session.py": {
        "test_all_four_tasks": "B.2-modality",
        "test_a_written_reply_may_turn_to_speech": "C.4-channel",
        "test_what_is_typed_steers_nothing": "J.4",
    },
    "runtime/test_sampling.py": {
        "test_mode_after_a_prompt": "C.1-start C.1-order J.8",
        "test_speech_rows": "C.2-mask J.11 J.14",
        "test_text_rows": "C.2-minimum C.2-idle C.2-think",
        "test_ties_at_the_top_k_are_kept_and_listed_lowest_first": "C.2-ties",
        "test_only_text_ids_and_the_budget_stop": "J.12",
    },
    "runtime/test_lm.py": {
        "test_forgotten_turns_are_not_penalised": "C.2-forgotten",
        "test_a_sleeping_branch_runs_nothing": "C.2-discarded",
        "test_any_prefill_and_any_sleep_equals_the_reference": "J.9",
    },
    "runtime/test_flow.py": {
        "test_what_cannot_be_said_is_refused": "C.4-range",
        "test_the_hundredth_chunk_costs_what_the_second_does": "E.10-prefix",
        "test_streaming_equals_offline": "E.9 J.22",
        "test_a_window_is_exact_until_it_is_full": "E.10-context",
        "test_the_window_of_the_published_size": "E.10-context",
    },
    "runtime/test_text.py": {
        "test_a_rewritten_mark_spelled_by_ordinary_ids": "C.5-rewrite",
    },
    "runtime/test_log_mel.py": {
        "test_streaming_equals_one_push": "D.4-stream",
        "test_rule_equals_offline_once_the_maximum_is_known": "J.18",
    },
    "runtime/test_enrol.py": {
        "test_codes_and_mel_are_the_references": "E.8-rate",
        "test_a_recording_of_the_wrong_length_is_refused": "E.8-length",
        "test_a_long_prompt_speaks_as_the_reference_does": "E.8-length",
    },
    "runtime/test_vocoder.py": {
        "test_harmonics_run_on_from_block_to_block": "F.4-phase",
        "test_the_seed_decides_the_noise": "J.31",
        "test_parity_is_upstreams_protocol": "J.32",
    },
    "export/test_checkpoint_facts.py": {
        "test_sampling_defaults": "C.3",
        "test_an_unusable_voice_is_refused": "J.33",
    },
    "export/test_reference_lm.py": {
        "test_branches_do_not_disturb_each_other": "A.2-tied",
        "test_each_branch_is_qwen3": "J.2",
        "test_a_row_is_embedded_from_one_channel": "J.3",
    },
    "export/test_parity_real_depth.py": {
        "test_angles_do_not_drift": "A.3-rope",
        "test_forty_layers_equal_the_reference": "A.3-rounding",
        "test_the_whole_flow_equals_the_reference": "J.28",
    },
    "export/test_lm_graph.py": {
        "test_branches_equal_the_reference_for_any_cut": "A.3-last",
        "test_quantized_engines_equal_the_reference_with_rounded_weights": "J.35",
    },
    "export/test_reference_census.py": {
        "test_counts": "J.1",
        "test_layers_beyond_the_needed_ones_are_not_built": "J.15",
    },
    "export/test_reference_tokenizer.py": {
        "test_frame_i_depends_on_mel_up_to_2i": "J.16",
        "test_segments_are_independent": "J.17",
    },
    "export/test_checkpoint.py": {
        "test_a_missing_or_misshapen_tensor_is_named": "J.20",
        "test_chunk_chooses_the_flow_file": "J.21",
        "test_weight_norm_is_fused_as_torch_does": "J.29",
    },
    "export/test_reference_hift.py": {
        "test_closed_form_of_the_phase_equals_the_literal_procedure": "F.3-random",
        "test_samples_equal_the_contract": "J.27 J.30",
    },
    "export/test_reference_flow.py": {
        "test_full_attention_differs_everywhere": "J.22",
        "test_start_noise": "J.23",
        "test_start_noise_bit_for_bit": "J.23",
        "test_guidance_zeroes_every_condition_of_the_second_half": "J.24",
        "test_epsilons": "J.25",
        "test_mu_equals_the_contract": "J.26",
        "test_noise_does_not_disturb_other_generators": "J.34",
    },
    "export/test_encoder_graph.py": {
        "test_a_codebook_is_stored_small_only_if_that_is_exact": "J.35",
    },
    "apps/test_audio_file.py": {
        "test_the_first_channel_is_used_and_not_the_mean": "J.19",
    },
}


def functions(path: Path) -> set[str]:
    """Names of the functions in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_trap_of_the_contract_is_decided():
    traps = {key for key in ENTRIES if key.startswith("J.")}
    assert traps == {f"J.{n}" for n in range(1, 36)}
    assert {key[0] for key in ENTRIES} == set("ABCDEFJ")


def test_no_line_of_the_list_is_lost():
    """What looks like an entry is one, and no key is there twice."""
    assert re.findall(r"^  (\S+)  ", quirks.__doc__, re.MULTILINE) == list(ENTRIES)


@pytest.mark.parametrize("file", PROOFS)
def test_the_tests_exist(file):
    assert PROOFS[file].keys() <= functions(TESTS / file)


def test_every_decision_has_a_test():
    proven = {key for tests in PROOFS.values() for keys in tests.values() for key in keys.split()}
    assert proven == {key for key, decision in ENTRIES.items() if decision != "not applicable"}
