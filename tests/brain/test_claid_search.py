"""The ranking of images by their regions against an obvious loop, and cases worked by hand."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.claid.search import COMBINES, rank_images
from fiftyone_selfsame.brain.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

# Two queries and five regions of three images: 0 shows both objects fairly well, 1 the first one very well, 2 neither.
SIMILARITY = np.array([[0.1, 0.7, 0.9, 0.2, 0.3], [0.6, 0.2, 0.1, 0.0, 0.1]])
CODES = np.array([0, 0, 1, 1, 2])


def literal_ranking(similarity, codes, combine):
    """``(code, score, rows)`` by the definition."""
    images = []
    for code in sorted(set(codes.tolist())):
        rows = [max(np.flatnonzero(codes == code), key=lambda row, line=line: (line[row], -row)) for line in similarity]
        best = [float(line[row]) for line, row in zip(similarity, rows, strict=True)]
        images.append((code, sum(best) / len(best) if combine == "all" else max(best), rows))
    return sorted(images, key=lambda image: -image[1])


@given(
    codes=st.lists(st.integers(0, 6), max_size=40),
    n_queries=st.integers(1, 4),
    levels=st.sampled_from([2, 1000]),
    combine=st.sampled_from(COMBINES),
    seed=st.integers(0, 99),
)
def test_the_ranking_is_that_of_an_obvious_loop_also_with_many_ties(codes, n_queries, levels, combine, seed):
    codes = np.array(codes, int)
    # Multiples of a power of two: their means are exact, so that ties are ties in any order of summation.
    similarity = np.random.default_rng(seed).integers(-levels, levels, (n_queries, len(codes))) / 1024

    ranking = rank_images(similarity, codes, combine)

    expected = literal_ranking(similarity, codes, combine)
    assert ranking.scores == pytest.approx([score for _, score, _ in expected])
    assert ranking.images.tolist() == [code for code, _, _ in expected]
    assert ranking.rows.T.tolist() == [rows for _, _, rows in expected]
    assert np.array_equal(ranking.similarities, np.take_along_axis(similarity, ranking.rows, 1))


def test_all_prefers_the_image_that_shows_every_query_and_any_the_one_that_shows_one_best():
    both, either = rank_images(SIMILARITY, CODES, "all"), rank_images(SIMILARITY, CODES, "any")

    assert both.images.tolist() == [0, 1, 2]
    assert both.scores == pytest.approx([0.65, 0.5, 0.2])
    assert both.rows.T.tolist() == [[1, 0], [2, 2], [4, 4]]
    assert either.images.tolist() == [1, 0, 2]
    assert either.scores == pytest.approx([0.9, 0.7, 0.3])


def test_equal_images_keep_the_order_of_their_codes_and_equal_regions_their_own():
    ranking = rank_images(np.ones((1, 5)), np.array([7, 3, 7, 5, 3]))

    assert ranking.images.tolist() == [3, 5, 7]
    assert ranking.rows.tolist() == [[1, 3, 0]]


def test_without_regions_there_is_an_empty_ranking():
    ranking = rank_images(np.empty((2, 0)), np.empty(0, int))

    assert (ranking.images.shape, ranking.scores.shape, ranking.rows.shape) == ((0,), (0,), (2, 0))


@pytest.mark.parametrize(
    ("similarity", "codes", "combine", "text"),
    [
        (SIMILARITY, CODES, "both", "combine='both' is unknown; use one of all, any"),
        (SIMILARITY, CODES[:4], "all", "must be"),
        (SIMILARITY[:0], CODES, "all", "Q > 0"),
        (SIMILARITY[0], CODES, "all", "must be"),
    ],
)
def test_what_does_not_fit_is_refused(similarity, codes, combine, text):
    with pytest.raises(ConfigError, match=text):
        rank_images(similarity, codes, combine)
