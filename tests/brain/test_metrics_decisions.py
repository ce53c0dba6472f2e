"""Decisions by a score, against scikit-learn and cases counted by hand."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.decisions import average_precision, best_f1_threshold, decision_figures
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40))
def test_figures_are_those_of_scikit_learn_also_with_equal_scores(rows):
    scores, truth = np.array([r[0] / 6 for r in rows]), np.array([r[1] for r in rows])
    decided = scores >= 0.5
    found = decision_figures(decided, truth)
    assert found.precision == pytest.approx(precision_score(truth, decided, zero_division=0))
    assert found.recall == pytest.approx(recall_score(truth, decided, zero_division=0))
    assert found.f1 == pytest.approx(f1_score(truth, decided, zero_division=0))
    if truth.any():
        assert average_precision(scores, truth) == pytest.approx(average_precision_score(truth, scores))
        best = decision_figures(scores >= best_f1_threshold(scores, truth), truth).f1
        assert best == pytest.approx(max(decision_figures(scores >= level, truth).f1 for level in scores))


def test_the_threshold_lies_in_the_middle_of_its_gap():
    assert best_f1_threshold(np.array([0.9, 0.8, 0.4, 0.1]), np.array([1, 1, 0, 0], bool)) == pytest.approx(0.6)


def test_there_is_no_threshold_without_a_positive_and_no_figure_for_unequal_lengths():
    with pytest.raises(ConfigError, match="no positive"):
        best_f1_threshold(np.array([0.5]), np.array([False]))
    with pytest.raises(ConfigError, match="do not belong together"):
        decision_figures(np.zeros(2, bool), np.zeros(3, bool))
    assert np.isnan(average_precision(np.array([0.5]), np.array([False])))
