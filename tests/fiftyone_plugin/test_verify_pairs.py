"""Verification: a matcher's word on doubtful links changes the order of risk, and stays with the run."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.cosalient.comparison import PairOutcome
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin import match_setup, verify_pairs
from fiftyone_selfsame.fiftyone_plugin.duplicate_store import find_record, load_pairs
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates, regroup_duplicates
from fiftyone_selfsame.fiftyone_plugin.stored_pairs import StoredPairs
from fiftyone_selfsame.fiftyone_plugin.verify_pairs import certainty


def angles(*degrees):
    """Unit vectors in the plane."""
    return [np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))]) for angle in degrees]


class Judge:
    """A matcher that finds two pictures alike if both are darker, or both lighter, than half."""

    name, threshold, calibrated = "judge", 0.4, True

    def __init__(self):
        self.compared = 0

    def settings(self):
        return {"matcher": self.name}

    def prepare(self, image, mask=None):
        return image

    def describe(self, prepared):
        return [float(image.mean()) for image in prepared]

    def compare(self, pairs):
        self.compared += len(pairs)
        empty = np.zeros((2, 2), bool)
        scores = [0.1 if (a > 127) != (b > 127) else 0.9 for a, b in pairs]
        return [PairOutcome(empty, empty, score, score >= self.threshold, False) for score in scores]


@pytest.fixture
def judge(monkeypatch):
    found = Judge()
    monkeypatch.setattr(match_setup.MatcherChoice, "load", lambda self: found)
    return found


@pytest.fixture
def doubtful(vector_dataset):
    """Three pairs of images: at 8, 6 and 2 degrees of each other; those of the second differ in brightness."""
    from PIL import Image

    dataset = vector_dataset(angles(0, 8, 40, 46, 90, 92))
    for sample, value in zip(dataset, (50, 60, 40, 230, 70, 80), strict=True):
        Image.new("RGB", (16, 16), (value, value, value)).save(sample.filepath)
    find_duplicates(dataset, threshold=0.99)
    return dataset


def _risks(dataset):
    """Risk by the first row of each group, the riskiest first."""
    numbers, risks = dataset.values("dup_group"), dataset.values("dup_risk")
    first = {number: row for row, number in reversed(list(enumerate(numbers)))}
    return sorted(first.values(), key=lambda row: -risks[row])


def test_what_is_confirmed_gets_less_risky_and_what_is_refuted_more(doubtful, judge):
    assert _risks(doubtful) == [0, 2, 4]
    before = doubtful.values("dup_group")
    summary = verify_pairs.verify_pairs(doubtful, band=1.0, progress=False)
    assert summary.counts == {
        "total": 3,
        "done": 3,
        "skipped": 0,
        "failed": 0,
        "confirmed": 2,
        "refuted": 1,
    }
    assert _risks(doubtful)[0] == 2
    assert doubtful.values("dup_group") == before


def test_verified_links_are_kept_when_groups_form_anew_and_not_compared_again(doubtful, judge):
    verify_pairs.verify_pairs(doubtful, band=1.0, progress=False)
    risks = doubtful.values("dup_risk")
    regroup_duplicates(doubtful, "dup", progress=False)
    assert doubtful.values("dup_risk") == risks
    again = verify_pairs.verify_pairs(doubtful, band=1.0, progress=False)
    assert (again.counts["skipped"], again.counts["refuted"], judge.compared) == (3, 1, 3)
    judge.threshold = 0.05
    assert verify_pairs.verify_pairs(doubtful, band=1.0, progress=False).counts["refuted"] == 0
    assert judge.compared == 6


def test_only_the_weakest_links_are_looked_at_and_the_rest_is_told(doubtful, judge):
    summary = verify_pairs.verify_pairs(doubtful, band=1.0, max_pairs=1, progress=False)
    assert judge.compared == 1
    assert "2 more doubtful links" in summary.notices[-1]
    stored = load_pairs(doubtful, find_record(doubtful, "dup"))
    weakest = int(np.argmin(np.where(stored.pairs.similarity >= 0.99, stored.pairs.similarity, 2)))
    assert np.flatnonzero(np.isfinite(stored.verified.sure)).tolist() == [weakest]
    assert verify_pairs.verify_pairs(doubtful, band=0.01, progress=False).counts["total"] <= 1


def test_a_picture_that_cannot_be_read_is_a_failure_and_the_rest_goes_on(doubtful, judge):
    paths = doubtful.values("filepath")
    with open(paths[4], "w") as stream:
        stream.write("no picture")
    summary = verify_pairs.verify_pairs(doubtful, band=1.0, progress=False)
    assert (summary.counts["done"], summary.counts["failed"]) == (2, 1)
    assert "image004.png" in next(iter(summary.failed.values()))


def test_runs_that_cannot_be_verified_are_refused(doubtful):
    with pytest.raises(ConfigError, match="no duplicate groups under key 'other'"):
        verify_pairs.verify_pairs(doubtful, "other")
    with pytest.raises(ConfigError, match="band=2"):
        verify_pairs.verify_pairs(doubtful, band=2)


def test_stored_pairs_without_verification_still_load(doubtful):
    stored = load_pairs(doubtful, find_record(doubtful, "dup"))
    results = stored.to_results()
    assert "verified" not in results
    assert StoredPairs.from_results(results).verified is None
    assert stored.verified_onto(stored.row_of) is None


@pytest.mark.parametrize(("score", "expected"), [(0.0, 0.0), (0.2, 0.25), (0.4, 0.5), (0.7, 0.75), (1.0, 1.0)])
def test_certainty_is_half_at_the_threshold(score, expected):
    assert certainty(score, 0.4) == pytest.approx(expected)
