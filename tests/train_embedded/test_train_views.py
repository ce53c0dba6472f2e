"""Batches: where warps take points and masks, which objects meet, and what augmentation leaves alone."""

import pytest
import torch
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fixtures.train_embedded.augment import found_masks, hue_matrices, relight
from fiftyone_selfsame.fixtures.train_embedded.batches import join
from fiftyone_selfsame.fixtures.train_embedded.data import load_photos, load_scenes
from fiftyone_selfsame.fixtures.train_embedded.photo_views import photo_views
from fiftyone_selfsame.fixtures.train_embedded.scene_views import scene_places, scene_views, select
from fiftyone_selfsame.fixtures.train_embedded.warps import (
    WarpRange,
    inside,
    move_points,
    outline_masks,
    pixel_centres,
    placement,
    random_outlines,
    random_warps,
    sample,
    view_grid,
)

RANGE = WarpRange(scale=(0.5, 1.0), shift=0.2, angle=40, stretch=0.2, shear=0.1, perspective=0.2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_point_goes_to_the_view_and_back():
    warps, points = random_warps(5, RANGE, generator()), torch.rand(5, 7, 2, generator=generator(1)) - 0.5

    there = move_points(torch.linalg.inv(warps), points)

    torch.testing.assert_close(move_points(warps, there), points, atol=1e-5, rtol=0)


def test_a_view_shows_a_dot_where_its_point_goes():
    side, warps = 64, random_warps(4, RANGE, generator(2))
    centre = pixel_centres(side)
    frame = torch.tensor([[0.3, -0.2]])
    picture = torch.exp(-((centre - frame) ** 2).sum(1) / 0.005).view(1, 1, side, side).expand(4, -1, -1, -1)

    views = sample(picture, view_grid(warps, side), padding="zeros")

    brightest = centre[views.flatten(1).argmax(1)]
    expected = move_points(torch.linalg.inv(warps), frame.expand(4, 1, 2))[:, 0]
    assert (brightest - expected).abs().max() < 3 * 2 / side


def test_outlines_are_drawn_where_their_points_are_inside():
    outlines, warps = random_outlines(6, generator(3)), random_warps(6, RANGE, generator(4))

    masks = outline_masks(outlines, warps, 64)

    points = move_points(warps, pixel_centres(64).expand(6, -1, -1))
    exact = inside(outlines, points).view(6, 64, 64)
    assert (masks - exact).abs().mean() < 0.02


def test_placement_puts_the_object_frame_at_a_centre_with_a_radius():
    moved = move_points(placement(torch.tensor([[0.5, -0.25]]), torch.tensor([0.2])), torch.tensor([[[1.0, 0.0]]]))

    torch.testing.assert_close(moved, torch.tensor([[[0.7, -0.25]]]))


def test_objects_meet_others_of_their_category(scenes):
    chosen = select(scenes, objects=12, per_category=2, generator=generator(5))

    objects, categories = scenes.objects[chosen.crops], scenes.categories[chosen.crops]
    assert (objects[::2] == objects[1::2]).all()
    assert (chosen.crops[::2] != chosen.crops[1::2]).all()
    neighbours = chosen.neighbours
    assert (categories[::2] == categories[::2][neighbours]).all()
    assert (objects[::2] != objects[::2][neighbours]).all()


def test_masks_and_pictures_of_scenes_move_together(scenes):
    """An object that is painted white in the material is white in its view just where its mask is."""
    white = torch.where(scenes.masks[:, None] > 127, 255, 0).to(torch.uint8).expand(-1, 3, -1, -1)
    painted = type(scenes)(**{**scenes.__dict__, "images": white})

    batch = scene_views(painted, None, 6, 64, generator(6))

    bright = batch.images.mean(1)
    for view, mask in zip(bright, batch.masks, strict=True):
        if 0.05 < mask.mean() < 0.9:
            assert view[mask > 0.95].mean() > view[mask < 0.05].mean() + 0.3


def test_places_of_scenes_are_on_their_objects_in_both_views(scenes):
    batch = scene_views(scenes, None, 8, 64, generator(7))
    places = batch.places

    assert len(places.views) > 50
    for end in (0, 1):
        points = places.points[:, end].view(-1, 1, 1, 2)
        covered = torch.nn.functional.grid_sample(batch.masks[places.views[:, end]][:, None], points).flatten()
        assert (covered > 0.3).float().mean() > 0.9


def test_places_in_two_views_have_the_same_surface_coordinates(scenes):
    chosen = select(scenes, objects=6, per_category=2, generator=generator(8))
    identity = torch.eye(3).repeat(12, 1, 1)

    places = scene_places(scenes, chosen, identity, generator(9))

    side = scenes.surface.shape[1]
    crops = chosen.crops[places.views]
    margin = 1.7
    cells = ((places.points / margin + 1) / 2 * side).floor().long().clamp(0, side - 1)
    here = scenes.surface[crops[:, 0], cells[:, 0, 1], cells[:, 0, 0]].float()
    there = scenes.surface[crops[:, 1], cells[:, 1, 1], cells[:, 1, 0]].float()
    assert (here - there).norm(dim=1).max() < 0.051
    torch.testing.assert_close(here, places.where, atol=1e-3, rtol=0)
    twins = ((places.mirrored / margin + 1) / 2 * side).floor().long().clamp(0, side - 1)
    mirrored = scenes.surface[crops[:, 1], twins[:, 1], twins[:, 0]].float()[places.has_mirrored]
    expected = here[places.has_mirrored] * torch.tensor([1.0, -1.0, 1.0]) + torch.tensor([0.0, 1.0, 0.0])
    assert places.has_mirrored.any()
    assert (mirrored - expected).norm(dim=1).max() < 0.051


def test_pieces_of_a_photograph_are_objects_of_their_own(photos):
    batch = photo_views(photos, 5, 48, generator(10))

    assert batch.images.shape == (10, 3, 48, 48)
    assert batch.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert (batch.places.views[:, 0] // 2 == batch.places.views[:, 1] // 2).all()
    assert not batch.places.has_mirrored.any()


def test_joined_batches_keep_objects_and_places_apart(photos):
    parts = [photo_views(photos, 3, 32, generator(seed)) for seed in (11, 12)]

    joined = join(parts)

    assert joined.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    second = joined.places.views[len(parts[0].places.views) :]
    assert second.min() >= 6
    near = joined.places.near()
    assert not near[: len(parts[0].places.views), len(parts[0].places.views) :].any()


def test_grey_views_have_no_colour_and_stay_pictures(photos):
    views = relight(photos.images[:, :, :64, :64].float() / 255, generator(13), grey=True)

    assert views.min() >= 0
    assert views.max() <= 1
    assert (views - views.mean(1, keepdim=True)).abs().max() < 1e-5


def test_a_whole_turn_of_hue_changes_nothing_and_grey_has_no_hue():
    matrices = hue_matrices(torch.tensor([0.0, 2 * torch.pi, 1.0]))

    torch.testing.assert_close(matrices[:2], torch.eye(3).repeat(2, 1, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(matrices[2] @ torch.ones(3), torch.ones(3), atol=1e-5, rtol=0)


def test_found_masks_are_imperfect_but_never_miss_the_object():
    masks = torch.zeros(40, 64, 64)
    masks[:, 16:48, 20:44] = 1

    found = found_masks(masks, generator(14), everything=0.0)

    true = torch.nn.functional.avg_pool2d(masks[:, None], 4)[:, 0]
    overlap = (found * true).sum((1, 2)) / true.sum((1, 2))
    assert overlap.min() >= 0.3
    assert (found != true).any()
    assert (found_masks(masks, generator(14), everything=1.0) == 1).all()


def test_missing_material_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no manifest\.json"):
        load_photos(tmp_path)
    with pytest.raises(ConfigError, match="no rendered scenes"):
        load_scenes(tmp_path)
