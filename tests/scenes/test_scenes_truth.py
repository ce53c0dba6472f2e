"""Ground truth of the packaged set: what pixels say fits what the scene holds, by other means than made it."""

import numpy as np
import pytest
from fiftyone_selfsame.fixtures.scenes.compose import compose
from fiftyone_selfsame.fixtures.scenes.correspondences import correspondences
from fiftyone_selfsame.fixtures.scenes.raster import rasterised
from fiftyone_selfsame.fixtures.scenes.render import Placed, Scene

SAMPLE = ("in-the-wild_00", "pairs_00", "cosalient_01")


@pytest.fixture(scope="module")
def sample(tiny_scenes):
    """A dozen images of all protocols with occlusion."""
    names = [name for name in tiny_scenes if name.endswith(SAMPLE)]
    return [tiny_scenes[name] for name in [*sorted(names)[:10], "multi_0005", "multi_0011"]]


def object_frame(scene, index):
    """``(H, W, 3)`` the visible surface of one object in its own frame, drawn apart from all others."""
    placed = scene.placed[index - 1]
    pieces = placed.thing.pieces
    local = np.concatenate([piece.mesh.points for piece in pieces])
    offsets = np.cumsum([0, *(len(piece.mesh.points) for piece in pieces)])[:-1]
    faces = np.concatenate([piece.mesh.faces + offset for piece, offset in zip(pieces, offsets, strict=True)])
    pixels, depths = scene.camera.project(local @ placed.to_world[:3, :3].T + placed.to_world[:3, 3])
    return rasterised(pixels, depths, faces, local, scene.camera.width, scene.camera.height)[2]


def test_corresponding_pixels_show_the_same_place_of_the_object(tiny_scenes, tiny_shots):
    checked = 0
    for name in ("mug-00", "car-01", "chair-00", "bottle-01", "quadruped-00"):
        first, second = (tiny_scenes[f"{name}_{shot}"] for shot in ("pose_00", "pose_01"))
        here, there = correspondences(first, second)
        places = [object_frame(compose(tiny_shots[image.name], 0), 1) for image in (first, second)]
        if not len(here):
            continue
        columns, rows = here.astype(int).T
        other_columns, other_rows = there.astype(int).T
        gap = np.linalg.norm(places[0][rows, columns] - places[1][other_rows, other_columns], axis=1)
        size = np.ptp(places[0][first.instances() == 1], axis=0).max()
        assert np.quantile(gap, 0.95) < 0.05 * size
        checked += len(here)
    assert checked > 1000


def test_an_image_corresponds_to_itself_pixel_by_pixel(tiny_scenes):
    image = tiny_scenes["car-00_pose_00"]

    here, there = correspondences(image, image)

    assert len(here) == (image.instances() == 1).sum()
    assert np.linalg.norm(here - there, axis=1).max() < 2


def test_mirrored_correspondences_join_the_two_sides(tiny_scenes):
    image = max(
        (entry for entry in tiny_scenes.values() if entry.name.startswith("chair")),
        key=lambda entry: len(correspondences(entry, entry, mirrored=True)[0]),
    )

    here, there = correspondences(image, image, mirrored=True)

    surface = image.surface()
    one = surface[here[:, 1].astype(int), here[:, 0].astype(int)]
    other = surface[there[:, 1].astype(int), there[:, 0].astype(int)]
    assert len(here) > 50
    np.testing.assert_allclose(one[:, 1] + other[:, 1], 1.0, atol=0.03)
    np.testing.assert_allclose(one[:, [0, 2]], other[:, [0, 2]], atol=0.03)


def test_visible_keypoints_are_unoccluded_and_hidden_ones_are_not(sample, tiny_shots):
    """Against Mitsuba's own ray casting, which knows nothing of the z-buffer."""
    right = wrong = 0
    for image in sample:
        scene = compose(tiny_shots[image.name], 0)
        cast = _caster(scene)
        for entry, placed in zip(image.objects, scene.placed, strict=True):
            size = float(np.hypot(2 * placed.thing.radius, placed.thing.height))
            for name, point in placed.thing.keypoints.items():
                if name not in entry.keypoints:
                    continue
                world = placed.to_world[:3, :3] @ point + placed.to_world[:3, 3]
                distance = np.linalg.norm(world - scene.camera.eye)
                free = cast(world) > distance - 0.012 * size
                right += free == bool(entry.keypoints[name][2])
                wrong += free != bool(entry.keypoints[name][2])
    # What differs is within rounding of the tolerance, or just on an outline.
    assert right > 150
    assert wrong < 0.02 * (right + wrong)


def test_the_z_buffer_sees_what_the_renderer_sees(sample, tiny_shots):
    agreed = total = 0
    for image in sample[:6]:
        scene = compose(tiny_shots[image.name], 0)
        instances = image.instances()
        cast = _caster(scene)
        inverse = np.linalg.inv(scene.camera.intrinsics)
        for row in range(4, image.height, 9):
            for column in range(4, image.width, 9):
                ray = scene.camera.world_to_camera[:3, :3].T @ (inverse @ [column + 0.5, row + 0.5, 1.0])
                hit = np.isfinite(cast(scene.camera.eye + ray))
                agreed += hit == (instances[row, column] > 0)
                total += 1
    assert agreed >= 0.99 * total


def _caster(scene):
    """``cast(point)``: metres from the camera to the first object on the way to and beyond a point."""
    from fiftyone_selfsame.fixtures.scenes.render import _mesh, _mitsuba

    mi = _mitsuba()
    shapes = {
        f"shape_{which}_{piece.number}": _mesh(mi, piece.mesh, placed.to_world, piece.material)
        for which, placed in enumerate(scene.placed)
        for piece in placed.thing.pieces
    }
    world = mi.load_dict({"type": "scene", **shapes})
    eye = scene.camera.eye

    def cast(point):
        direction = (point - eye) / np.linalg.norm(point - eye)
        return float(world.ray_intersect(mi.Ray3f(eye.tolist(), direction.tolist())).t)

    return cast


def test_amodal_masks_hold_the_visible_ones_and_hidden_parts(sample):
    hidden = 0
    for image in sample:
        instances = image.instances()
        for entry in image.objects:
            visible, whole = instances == entry.index, image.amodal(entry.index)
            assert not (visible & ~whole).any()
            assert entry.visible_share == pytest.approx(visible.sum() / max(whole.sum(), 1), abs=1e-3)
            hidden += (whole & ~visible).sum()
    assert hidden > 200


def test_boxes_enclose_their_masks_tightly(sample):
    for image in sample:
        for entry in image.objects:
            rows, columns = np.nonzero(image.instances() == entry.index)
            if len(rows):
                x, y, width, height = entry.box
                assert (x, y) == (columns.min(), rows.min())
                assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)


def test_the_azimuth_is_that_of_the_camera_in_the_frame_of_the_object(sample, tiny_shots):
    for image in sample:
        scene = compose(tiny_shots[image.name], 0)
        for entry, placed in zip(image.objects, scene.placed, strict=True):
            eye = np.linalg.inv(placed.to_world) @ [*scene.camera.eye, 1.0]
            assert np.rad2deg(np.arctan2(eye[1], eye[0])) % 360 == pytest.approx(entry.azimuth, abs=1e-2)
            assert entry.azimuth_bin == round(entry.azimuth / 45) % 8


def test_shots_ask_for_azimuths_and_get_them(tiny_scenes, tiny_shots):
    for name, image in tiny_scenes.items():
        if image.protocol == "pairs":
            wanted = tiny_shots[name].extra["azimuth"]
            assert image.objects[0].azimuth_bin == round(wanted / 45) % 8


def test_a_turned_object_moves_in_the_picture_as_its_matrix_says(tiny_shots):
    scene = compose(tiny_shots["car-00_pose_00"], 0)
    placed = Placed(scene.placed[0].thing, (0.1, 0.2), 90.0, "subject")
    turned = Scene(scene.camera, scene.stage, (placed,))

    np.testing.assert_allclose(turned.placed[0].to_world @ [1, 0, 0, 1], [0.1, 1.2, 0, 1], atol=1e-12)
