"""Same shots: what an edit or the next frame may change, what another scene or a turned object may not."""

import pickle

import cv2
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.local_features import fit_affine, local_features, mutual_matches
from fiftyone_selfsame.brain.same_shot import (
    SHOT_THRESHOLD,
    match_shots,
    same_shot,
    shot_features,
    shot_labels,
)
from PIL import Image, ImageDraw, ImageFilter


def scene(seed, size=(240, 320)):
    """A picture of many overlapping patches of colour: corners, edges and flat parts, as in a photograph."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", size, tuple(int(level) for level in rng.integers(60, 200, 3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(70):
        x, y = rng.uniform(-0.1, 1.0, 2) * size
        wide, high = rng.uniform(0.04, 0.25, 2) * max(size)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + wide, y + high), fill=tuple(int(level) for level in rng.integers(0, 256, 3)))
    return picture.filter(ImageFilter.GaussianBlur(0.7))


def match(a, b, **options):
    return match_shots(*(shot_features(np.asarray(picture)) for picture in (a, b)), **options)


def jpeg(picture, tmp_path):
    picture.save(tmp_path / "copy.jpg", quality=12)
    return Image.open(tmp_path / "copy.jpg").convert("RGB")


def captioned(picture):
    copy = picture.copy()
    ImageDraw.Draw(copy).rectangle((0, picture.height - 32, picture.width, picture.height), fill="white")
    return copy


def bordered(picture):
    copy = Image.new("RGB", (picture.width + 50, picture.height + 50), "black")
    copy.paste(picture, (25, 25))
    return copy


EDITS = {
    "half size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "stretched": lambda picture: picture.resize((picture.width, picture.height * 4 // 5)),
    "cropped": lambda picture: picture.crop((30, 20, 210, 280)),
    "darker": lambda picture: picture.point(lambda level: int(255 * (level / 255) ** 1.8)),
    "tinted": lambda picture: picture.convert("RGB", (1.1, 0, 0, 0, 0, 0.8, 0, 10, 0, 0, 0.6, 20)),
    "grey": lambda picture: picture.convert("L").convert("RGB"),
    "turned a little": lambda picture: picture.rotate(7, Image.Resampling.BICUBIC),
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(2)),
    "captioned": captioned,
    "bordered": bordered,
    "captioned and reduced": lambda picture: captioned(picture).resize((150, 200)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_copy_is_the_same_shot_unmirrored(edit):
    found = match(scene(1), EDITS[edit](scene(1)))

    assert same_shot(found), found.score
    assert not found.mirrored


def test_strong_compression_leaves_the_same_shot(tmp_path):
    assert same_shot(match(scene(1), jpeg(scene(1), tmp_path)))


def test_the_mirrored_picture_is_the_same_shot_unless_mirror_images_are_not_asked_for():
    picture, mirrored = scene(2), scene(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    found = match(picture, mirrored.crop((10, 10, 220, 300)))

    assert found.mirrored
    assert same_shot(found)
    assert not same_shot(match(picture, mirrored, mirrored=False))


@pytest.mark.parametrize("seed", range(3, 9))
def test_another_scene_is_another_shot(seed):
    assert match(scene(1), scene(seed)).score < 0.6


def test_an_object_that_was_turned_in_front_of_the_same_background_is_another_shot():
    picture = scene(1, (300, 300))
    turned = picture.copy()
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).ellipse((60, 60, 240, 240), fill=255)
    turned.paste(picture.rotate(40, Image.Resampling.BICUBIC), mask=mask)

    assert 0.3 < match(picture, turned).score < SHOT_THRESHOLD


def test_the_next_frame_of_a_hand_held_camera_is_the_same_shot():
    picture = scene(1)
    rng = np.random.default_rng(0)
    moved = picture.rotate(1.5, Image.Resampling.BICUBIC, translate=(7, -5)).crop((8, 8, 232, 312))
    noisy = np.clip(np.asarray(moved) * 0.92 + rng.normal(0, 4, (304, 224, 3)), 0, 255).astype(np.uint8)

    assert same_shot(match(picture, noisy))


def test_smooth_things_on_white_are_told_apart_by_their_faint_marks():
    def fruit(seed):
        y, x = np.mgrid[:100, :100]
        inside = ((x - 50) / 40) ** 2 + ((y - 50) / 36) ** 2 < 1
        marks = np.random.default_rng(seed).normal(size=(100, 100)).astype(np.float32)
        shade = 150 - 0.8 * x + 90 * cv2.GaussianBlur(marks, (0, 0), 3)
        return np.where(inside, shade, 255).clip(0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)

    copy = np.clip(fruit(0) * 0.8 + 12, 0, 255).astype(np.uint8)

    assert same_shot(match(fruit(0), copy))
    assert not same_shot(match(fruit(0), fruit(1)))


def test_a_picture_with_hardly_any_features_is_the_same_shot_as_its_copy_but_not_as_another(tmp_path):
    plain, other = (
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)).resize((90, 75))
        for seed in (1, 2)
    )

    assert len(shot_features(np.asarray(plain)).local) < 12
    assert same_shot(match(plain, jpeg(plain, tmp_path)))
    assert not same_shot(match(plain, other))


def test_the_map_is_in_pixels_of_the_pictures():
    picture = scene(1)

    found = match(picture, picture.crop((40, 60, 220, 280)).resize((360, 440), Image.Resampling.BICUBIC))

    corner = found.transform @ [139.5, 159.5, 1.0]
    np.testing.assert_allclose(corner, [199.5, 199.5], atol=1.5)
    np.testing.assert_allclose(found.transform[:, :2], [[2, 0], [0, 2]], atol=0.03)


def test_order_does_not_decide():
    a, b = scene(1), scene(1).crop((0, 0, 180, 300))

    assert match(a, b).score == pytest.approx(match(b, a).score, abs=0.02)


def test_pictures_that_share_a_corner_only_are_not_the_same_shot():
    wide = scene(1, (480, 480))

    assert not same_shot(match(wide.crop((0, 0, 300, 300)), wide.crop((180, 180, 480, 480))))


def test_blank_and_tiny_pictures_match_nothing_and_are_no_error():
    blank = np.full((50, 60, 3), 200, np.uint8)

    assert match(blank, blank).score == 0
    assert match(blank, np.asarray(scene(1))).score == 0
    assert match(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 400, 3), np.uint8)).score == 0


def test_features_are_small_repeatable_and_survive_pickling():
    picture = np.asarray(scene(1, (900, 700)))

    first, second = shot_features(picture), pickle.loads(pickle.dumps(shot_features(picture)))

    assert len(pickle.dumps(first)) < 42_000
    np.testing.assert_array_equal(first.local.descriptors, second.local.descriptors)
    assert match_shots(first, second).score > 0.99
    assert first.coarse @ second.coarse == pytest.approx(1.0)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_rgb_picture_is_refused(image):
    with pytest.raises(ConfigError, match=r"\(H, W, 3\) uint8"):
        shot_features(image)


def test_mirrored_features_are_those_of_the_mirrored_picture():
    grey = np.asarray(scene(1, (168, 224)).convert("L"))

    derived = local_features(grey).mirrored(168)
    seen = local_features(np.ascontiguousarray(grey[:, ::-1]))

    matches = mutual_matches(derived, seen)
    apart = np.linalg.norm(derived.points[matches[:, 0]] - seen.points[matches[:, 1]], axis=1)
    assert (apart < 2).sum() > 0.7 * len(seen)
    assert len(mutual_matches(local_features(grey), seen)) < 0.5 * len(matches)


def test_the_affine_map_is_found_among_wrong_matches_and_refused_where_it_folds_the_picture():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 200, (60, 2)).astype(np.float32)
    true = np.array([[1.1, 0.1, 5], [-0.1, 1.1, -3]])
    target = (points @ true[:, :2].T + true[:, 2]).astype(np.float32)
    target[40:] = rng.uniform(0, 200, (20, 2))

    np.testing.assert_allclose(fit_affine(points, target), true, atol=0.01)
    assert fit_affine(points, points * np.float32([-1, 1])) is None
    assert fit_affine(points[:4], points[:4]) is None


def test_shots_are_gathered_from_the_best_pairs_down_and_a_slow_turn_does_not_melt_into_one():
    # Six frames of a turn: each is like the next, all others are not; and a seventh picture alone.
    pairs = np.array([(i, j) for i in range(6) for j in range(i + 1, 6)])
    score = np.where(pairs[:, 1] - pairs[:, 0] == 1, 0.95, 0.4)
    score[0] = 0.99

    labels = shot_labels(7, pairs, score)

    # 0-1 first; then 1-2 would join {0, 1} and {2}, where one of two pairs is alike: half of them is enough; but of
    # {0, 1, 2} and {3} one of three is, which is not.
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert labels.dtype == np.int32


def test_shots_may_be_gathered_from_answers_and_from_few_of_the_pairs():
    assert shot_labels(4, np.array([[0, 2], [2, 3], [1, 3]]), np.array([True, True, False])).tolist() == [0, 1, 0, 0]
    assert shot_labels(2, np.zeros((0, 2), int), np.zeros(0)).tolist() == [0, 1]
