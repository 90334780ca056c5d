"""How far to go from the base, decided on validation results alone."""

from __future__ import annotations

import logging

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.errors import UserError
from retrofit.evaluation.evaluate import RESULT_SCHEMA
from retrofit.training.interpolation import (
    Candidate,
    candidates_frame,
    choose_weight,
    judge,
    try_weights,
    weights_to_try,
)

Cells = dict[tuple[str, str, str], float]

BASE: Cells = {
    ("held_out", "help", "de"): 0.5,
    ("held_out", "help", "en"): 0.4,
    ("held_out", "desc", "en"): 0.2,
    ("other", "help", "ja"): 0.1,
    ("retention_definition", "definition", "en"): 0.8,
    ("retention_bitext", "bitext", "en"): 0.9,
}


def results(cells: Cells) -> pa.Table:
    rows = [
        {
            "suite": suite, "task": task, "query_language": language, "document_language": language, "query_id": "q",
            "ndcg_at_10": value, "mrr_at_10": 0.0, "map_at_100": 0.0, "recall_at_100": 0.0, "top_passage_ids": [],
        }
        for (suite, task, language), value in cells.items()
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=RESULT_SCHEMA)


def moved(changes: Cells) -> pa.Table:
    return results({cell: value + changes.get(cell, 0) for cell, value in BASE.items()})


def test_a_weight_is_judged_by_what_it_gains_and_forgets() -> None:
    changes = {
        ("held_out", "help", "de"): 0.2,
        ("held_out", "help", "en"): -0.3,
        ("held_out", "desc", "en"): 0.1,
        ("other", "help", "ja"): 0.4,
        ("retention_definition", "definition", "en"): 0.05,
        ("retention_bitext", "bitext", "en"): -0.02,
    }
    candidate = judge(0.75, results(BASE), moved(changes))
    assert candidate.weight == 0.75
    # held_out: the mean of (help: -0.05, desc: 0.1) is 0.025; other: 0.4.
    assert candidate.gain == pytest.approx((0.025 + 0.4) / 2)
    # The suite that falls most decides: a gain elsewhere does not make up for it.
    assert candidate.retention == pytest.approx(-0.02)
    assert candidate.languages_down == 1


def test_the_base_itself_neither_gains_nor_forgets() -> None:
    assert judge(0.0, results(BASE), results(BASE)) == Candidate(0.0, 0.0, 0.0, 0)


def test_without_a_retention_suite_nothing_is_forgotten() -> None:
    cells = {cell: value for cell, value in BASE.items() if not cell[0].startswith("retention")}
    candidate = judge(1.0, results(cells), results({cell: value - 0.1 for cell, value in cells.items()}))
    assert candidate.gain == pytest.approx(-0.1)
    assert candidate.retention == 0
    assert candidate.languages_down == 3


CANDIDATES = [
    Candidate(0.25, 0.01, 0.02, 0),
    Candidate(0.5, 0.03, -0.005, 0),
    Candidate(0.75, 0.05, -0.02, 1),
    Candidate(1.0, 0.04, -0.05, 2),
]


@pytest.mark.parametrize(("max_drop", "weight"), [(0.0, 0.25), (0.005, 0.5), (0.01, 0.5), (0.02, 0.75), (1.0, 0.75)])
def test_the_largest_gain_within_the_allowed_drop_is_chosen(max_drop: float, weight: float) -> None:
    assert choose_weight(CANDIDATES, max_drop, 1.0).weight == weight
    assert choose_weight(CANDIDATES[::-1], max_drop, 1.0).weight == weight


@pytest.mark.parametrize(
    ("gain_share", "weight"), [(1.0, 0.75), (0.61, 0.75), (0.59, 0.5), (0.21, 0.5), (0.19, 0.25), (0.0, 0.25)]
)
def test_the_candidate_nearest_the_base_that_has_enough_of_the_gain_is_chosen(gain_share: float, weight: float) -> None:
    assert choose_weight(CANDIDATES, 1.0, gain_share).weight == weight
    assert choose_weight(CANDIDATES[::-1], 1.0, gain_share).weight == weight


def test_the_share_is_one_of_the_gain_that_is_allowed() -> None:
    # 0.05 is forbidden here; half of 0.03 is more than 0.01.
    assert choose_weight(CANDIDATES, 0.01, 0.5).weight == 0.5


def test_where_nothing_gains_the_smallest_loss_is_chosen() -> None:
    losing = [Candidate(0.25, -0.02, 0.0, 1), Candidate(0.5, -0.01, 0.0, 1), Candidate(1.0, -0.03, 0.0, 1)]
    assert choose_weight(losing, 0.0, 0.5).weight == 0.5


def test_where_all_forget_too_much_the_least_forgetful_is_chosen_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose_weight(CANDIDATES[1:], 0.001, 0.75).weight == 0.5
    assert "export.max_drop=0.001" in caplog.text


NUMBERS = st.floats(-1, 1)


@given(
    st.lists(st.builds(Candidate, st.floats(0.01, 1), NUMBERS, NUMBERS, st.integers(0, 9)), min_size=1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_no_allowed_candidate_nearer_the_base_has_enough(
    candidates: list[Candidate], max_drop: float, gain_share: float
) -> None:
    chosen = choose_weight(candidates, max_drop, gain_share)
    allowed = [candidate for candidate in candidates if candidate.retention >= -max_drop]
    assert chosen in (allowed or candidates)
    if not allowed:
        assert chosen.retention == max(candidate.retention for candidate in candidates)
        return
    best = max(candidate.gain for candidate in allowed)
    needed = gain_share * best if best > 0 else best
    assert chosen.gain >= needed
    assert all(candidate.gain < needed for candidate in allowed if candidate.weight < chosen.weight)


def test_the_table_marks_the_choice() -> None:
    table = candidates_frame(CANDIDATES, CANDIDATES[2])
    assert list(table.columns) == ["weight", "gain", "retention", "languages_down", "chosen"]
    assert table["weight"].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert table["chosen"].tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("asked", "expected"), [(1.0, [1.0]), (1, [1.0]), ([0.5], [0.5]), ([1, 0.25, 0.5], [0.25, 0.5, 1.0])]
)
def test_weights_to_try_are_ascending(asked: float | list[float], expected: list[float]) -> None:
    assert weights_to_try(asked) == expected


@pytest.mark.parametrize("asked", [[], 0, 0.0, [0.0, 0.5], 1.01, [0.5, 2], -0.5, None, True, "abc", [0.5, None]])
def test_weights_outside_are_an_error_that_names_the_key(asked: float | list[float]) -> None:
    with pytest.raises(UserError, match=r"^export\.interpolation="):
        weights_to_try(asked)


def test_every_weight_is_measured_once_and_the_best_is_returned() -> None:
    asked = []

    def evaluate_at(weight: float) -> pa.Table:
        asked.append(weight)
        return moved(
            {("held_out", "help", "de"): weight, ("retention_bitext", "bitext", "en"): -0.1 if weight > 0.6 else 0.1}
        )

    chosen, table = try_weights([0.25, 0.5, 1.0], evaluate_at, results(BASE), max_drop=0.0, gain_share=0.75)
    assert asked == [0.25, 0.5, 1.0]
    assert chosen.weight == 0.5
    assert table.loc[table["chosen"], "weight"].tolist() == [0.5]
    assert table["gain"].is_monotonic_increasing
