"""From evidence on patches to masks with the edges of the picture."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.cosalient import refine
from fiftyone_selfsame.brain.cosalient.refine import enlarged, refine_by_doubt, refine_by_erosion
from fiftyone_selfsame.brain.geometry import plan_geometry

REFINEMENTS = [refine_by_doubt, refine_by_erosion]


def disc(side=96):
    rows, columns = np.mgrid[:side, :side]
    return (rows - 48) ** 2 + (columns - 48) ** 2 < 26**2


def picture(mask, seed=0):
    colours = np.where(mask[..., None], (200, 40, 40), (40, 60, 190))
    noise = np.random.default_rng(seed).integers(-15, 15, colours.shape)
    return (colours + noise).clip(0, 255).astype(np.uint8)


def blocky(mask, strength, patch=16):
    """Evidence as patches of so many pixels would give it."""
    count = len(mask) // patch
    share = mask.reshape(count, patch, count, patch).mean((1, 3))
    return np.kron(np.where(share > 0.5, strength, -strength), np.ones((patch, patch))).astype(np.float32)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


# Erosion leaves a band of three pixels on either side of the edge undecided: it mends small blocks only.
@pytest.mark.parametrize(("refined", "patch"), [(refine_by_doubt, 16), (refine_by_erosion, 6)])
def test_a_mask_of_blocks_gets_the_edge_of_the_object(refined, patch):
    evidence = blocky(disc(), 2.0, patch)
    assert iou(evidence > 0, disc()) < 0.95
    assert iou(refined(picture(disc()), evidence), disc()) > 0.98


def test_pixels_that_patches_are_certain_of_keep_their_side_against_their_colour():
    evidence = blocky(disc(), 2.0)
    evidence[:10, :10], evidence[44:52, 44:52] = -9.0, -9.0
    found = refine_by_doubt(picture(disc()), evidence)
    assert not found[45:51, 45:51].any()
    assert not found[:9, :9].any()


def test_what_lies_deep_inside_a_mask_stays_inside_whatever_its_colour():
    evidence = np.full((96, 96), -1.0, np.float32)
    evidence[20:60, 20:60] = 1.0
    found = refine_by_erosion(picture(disc()), evidence)
    assert found[25:55, 25:55].all()
    assert not found[70:].any()


@pytest.mark.parametrize("refined", REFINEMENTS)
@pytest.mark.parametrize("value", [1.0, -1.0])
def test_evidence_on_one_side_only_stays_as_it_is(refined, value):
    evidence = np.full((96, 96), value, np.float32)
    assert (refined(picture(disc()), evidence) == (evidence > 0)).all()


@pytest.mark.parametrize("refined", REFINEMENTS)
def test_where_the_cut_fails_the_evidence_stands(refined, monkeypatch):
    def failing(*_):
        raise refine.cv2.error("too few samples")

    monkeypatch.setattr(refine, "cut", failing)
    evidence = blocky(disc(), 2.0)
    assert (refined(picture(disc()), evidence) == (evidence > 0)).all()


@pytest.mark.parametrize("refined", REFINEMENTS)
def test_an_object_never_vanishes_by_refinement(refined):
    evidence = np.full((96, 96), -1.0, np.float32)
    evidence[40:44, 40:44] = 0.5
    assert refined(np.full((96, 96, 3), 90, np.uint8), evidence).any()


def test_refinement_is_the_same_each_time():
    evidence = blocky(disc(), 1.0)
    first, again = (refine_by_doubt(picture(disc()), evidence) for _ in range(2))
    assert (first == again).all()


def test_evidence_is_enlarged_over_the_picture_without_the_padding():
    geometry = plan_geometry((32, 64), 64, 16, "letterbox")
    evidence = np.full((4, 4), -1.0, np.float32)
    evidence[1:3, :2] = 1.0
    found = enlarged(evidence, geometry, (20, 40))
    assert found.shape == (20, 40)
    assert (found[8:12, :16] > 0).all()
    assert (found[:, 24:] < 0).all()
