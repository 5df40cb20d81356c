from __future__ import annotations

from search.reporting.bands import BandColumns, band_columns
from search.reporting.sentences import _bands
from search.reporting.tables import _of_tasks

ROW = {
    "accuracy_least_squares": 0.9, "floor_least_squares": 0.8,
    "length_ratio_least_squares": 1.0, "length_ratio_least_least_squares": 0.9, "length_ratio_most_least_squares": 1.1,
    "toxicity": 0.05, "toxicity_least": 0.0, "toxicity_most": 0.1,
    "length_ratio_de": 1.0, "length_ratio_de_least": 0.9, "length_ratio_de_most": 1.2,
}  # fmt: skip


def test_columns_of_bands_are_found_whatever_tasks_and_metrics_are_called() -> None:
    assert band_columns([{"trial": 0}, ROW]) == [
        BandColumns(
            "length_ratio_least_squares", "length_ratio_least_least_squares", "length_ratio_most_least_squares"
        ),
        BandColumns("toxicity", "toxicity_least", "toxicity_most"),
        BandColumns("length_ratio_de", "length_ratio_de_least", "length_ratio_de_most"),
    ]


def test_a_report_tells_every_band() -> None:
    assert _bands(ROW) == [
        "Length of the answers of least_squares: 1.00 of the references' tokens, within 0.9 to 1.1.",
        "Toxicity: 0.05, within 0 to 0.1.",
        "Length of the answers of de: 1.00 of the references' tokens, within 0.9 to 1.2.",
    ]
    assert [column.key for column in _of_tasks([ROW])][1:] == [
        "length_ratio_least_squares",
        "toxicity",
        "length_ratio_de",
    ]


def test_a_trial_that_was_not_scored_on_all_examples_has_no_line() -> None:
    assert _bands(dict.fromkeys(ROW)) == []
