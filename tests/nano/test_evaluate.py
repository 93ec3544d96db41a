"""The counts and comparisons of the evaluation, on answers made up for it."""

from pathlib import Path

import pytest
from tiny_bundle import manifest, write_bundle, write_manifest

from antiphon.runtime.bundle import Bundle
from nano.evaluate import Answer, Tally, merged, on_cpu, paired, summary


def answer(number: int, *, right: bool, errors: int = 0, unseen: bool = True) -> Answer:
    return Answer(
        question=f"{number}.flac",
        family="add" if number % 2 else "day_after",
        unseen=unseen,
        asked=f"question {number}",
        heard="" if errors else "five",
        right=right,
        errors=errors,
        words=4,
    )


def test_wrong_answers_count_in_full_and_right_ones_alone() -> None:
    tally = Tally(
        answers=[
            answer(1, right=True),
            answer(2, right=True, errors=1),
            answer(3, right=False, errors=4, unseen=False),
            answer(4, right=True, unseen=False),
        ]
    )
    found = summary(tally)
    assert found["exact"]["percent"] == 75
    assert found["exact_apart_from_development"]["percent"] == 100
    assert found["exact_by_family"] == {"add": 50.0, "day_after": 100.0}
    assert found["whisper_wer_percent"] == pytest.approx(100 * 5 / 16)
    assert found["whisper_wer_percent_of_right_answers"] == pytest.approx(100 / 12)
    assert found["misses"] == ["question 3 -> (nothing)"]


def test_without_whisper_there_is_no_word_error_rate() -> None:
    silent = Answer("1.flac", "add", True, "q", "five", True, 0, 0)
    assert summary(Tally(answers=[silent]))["whisper_wer_percent"] is None


def test_a_pair_is_compared_on_the_questions_both_answered() -> None:
    mine = {str(i): i % 10 != 0 for i in range(200)}  # 90 %
    other = {str(i): i % 5 != 0 for i in range(200)} | {"only there": False}  # 80 %
    found = paired(mine, other)
    assert found["questions"] == 200
    assert found["points"] == pytest.approx(10)
    assert 0 < found["low"] < 10 < found["high"] < 20


def test_the_same_answers_do_not_differ() -> None:
    mine = {str(i): i % 3 == 0 for i in range(50)}
    assert paired(mine, dict(mine)) == {"questions": 50, "points": 0, "low": 0, "high": 0}


def test_the_parts_of_several_processes_are_one_evaluation() -> None:
    whole = Tally(answers=[answer(n, right=n % 2 == 0) for n in range(6)], typed_right=[True] * 6)
    parts = [Tally(answers=whole.answers[k::2], typed_right=[True] * 3) for k in (1, 0)]
    assert summary(merged(parts)) == summary(whole)


def test_a_bundle_for_another_target_is_opened_on_the_cpu(tmp_path: Path) -> None:
    """fp8 bundles are made for CUDA; their numbers are looked at here."""
    folder = write_bundle(tmp_path / "bundle")
    write_manifest(folder, manifest(folder).to_dict() | {"target": "cuda"})
    assert Bundle.open(folder).manifest.target == "cuda"
    assert on_cpu(folder).manifest.target == "cpu"
