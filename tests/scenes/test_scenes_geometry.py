"""Solids, meshes, cameras and the z-buffer against hand-worked cases and slow references."""

import numpy as np
import pytest
from fiftyone_selfsame.fixtures.scenes.cameras import Camera, azimuth_bin
from fiftyone_selfsame.fixtures.scenes.dials import Dials
from fiftyone_selfsame.fixtures.scenes.meshes import triangulated
from fiftyone_selfsame.fixtures.scenes.raster import rasterised
from fiftyone_selfsame.fixtures.scenes.solids import (
    Material,
    box,
    ellipsoid,
    lathe,
    mirrored_name,
    plate,
    rotation,
    torus,
    tube,
)

GREY = Material(np.array([0.5, 0.5, 0.5]))


def camera(**changes):
    settings = {"target": (0.0, 0.0, 0.0), "azimuth": 0.0, "elevation": 0.0, "distance": 2.0, "roll": 0.0}
    return Camera(**{**settings, "fov": 90.0, "width": 100, "height": 80, **changes})


def test_a_camera_on_the_front_sees_left_on_its_right_and_up_above():
    pixels, depths = camera().project(np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))

    # Focal length 50 pixels, two metres away: one metre is 25 pixels.
    np.testing.assert_allclose(pixels, [[50, 40], [75, 40], [50, 15]], atol=1e-9)
    np.testing.assert_allclose(depths, 2.0)


def test_azimuth_ninety_sees_the_left_side_with_the_front_on_the_left():
    pixels, _ = camera(azimuth=90.0).project(np.array([[1.0, 0.0, 0.0]]))

    np.testing.assert_allclose(pixels, [[25, 40]], atol=1e-9)


def test_roll_turns_the_picture_clockwise():
    pixels, _ = camera(roll=90.0).project(np.array([[0.0, 0.0, 1.0]]))

    np.testing.assert_allclose(pixels, [[75, 40]], atol=1e-9)


@pytest.mark.parametrize(("azimuth", "expected"), [(0, 0), (22.4, 0), (22.6, 1), (180, 4), (337.4, 7), (337.6, 0)])
def test_azimuth_bins_are_centred_on_multiples_of_45_degrees(azimuth, expected):
    assert azimuth_bin(azimuth) == expected


def test_the_z_buffer_agrees_with_a_ray_cast_through_every_pixel():
    rng = np.random.default_rng(3)
    corners = rng.uniform(-1, 1, (12, 3, 3)) * [1, 1, 0.5]
    view = camera(width=24, height=20, elevation=20.0, azimuth=35.0)
    points = corners.reshape(-1, 3)
    pixels, depths = view.project(points)
    faces = np.arange(36).reshape(12, 3)

    depth, face, values = rasterised(pixels, depths, faces, points, 24, 20)

    for row in range(20):
        for column in range(24):
            distance, nearest, hit = _cast(view, corners, column + 0.5, row + 0.5)
            assert face[row, column] == nearest
            if nearest >= 0:
                assert depth[row, column] == pytest.approx(distance)
                np.testing.assert_allclose(values[row, column], hit, atol=1e-9)
            else:
                assert np.isinf(depth[row, column])


def _cast(view, corners, x, y):
    """Nearest triangle on the ray through a pixel, one triangle after the other."""
    local = np.linalg.inv(view.intrinsics) @ [x, y, 1.0]
    ray = view.world_to_camera[:3, :3].T @ local
    best = (np.inf, -1, None)
    for index, (a, b, c) in enumerate(corners):
        u, v, t = np.linalg.solve(np.stack([b - a, c - a, -ray], 1), view.eye - a)
        if u >= 0 and v >= 0 and u + v <= 1 and 0 < t < best[0]:
            best = (t, index, view.eye + t * ray)
    return best


def test_a_triangle_behind_the_camera_is_left_out():
    pixels, depths = camera().project(np.array([[3.0, 0.0, 0.0], [3.0, 1.0, 0.0], [3.0, 0.0, 1.0]]))

    _, face, _ = rasterised(pixels, depths, np.array([[0, 1, 2]]), np.zeros((3, 1)), 100, 80)

    assert (face == -1).all()


def test_solids_have_the_extent_that_was_asked_for():
    def extent(part):
        return np.ptp(part.points.reshape(-1, 3), axis=0)

    np.testing.assert_allclose(extent(box("b", (0.3, 0.2, 0.1), GREY)), [0.3, 0.2, 0.1], atol=1e-9)
    np.testing.assert_allclose(extent(ellipsoid("e", (0.3, 0.2, 0.1), GREY)), [0.3, 0.2, 0.1], atol=2e-3)
    np.testing.assert_allclose(extent(lathe("l", [(0, 0), (0.1, 0), (0.1, 0.4)], GREY)), [0.2, 0.2, 0.4], atol=1e-9)
    np.testing.assert_allclose(extent(torus("t", 0.2, 0.05, GREY, "z")), [0.5, 0.5, 0.1], atol=2e-3)
    outline = np.array([[0.0, 0.0], [0.4, 0.0], [0.4, 0.2], [0.0, 0.2], [0.0, 0.0]])
    np.testing.assert_allclose(extent(plate("p", outline, 0.02, GREY)), [0.4, 0.02, 0.2], atol=1e-9)
    straight = tube("s", [(0, 0, 0.05), (0.3, 0, 0.05)], 0.02, GREY, round_ends=False)
    np.testing.assert_allclose(extent(straight), [0.3, 0.04, 0.04], atol=1e-3)


def test_normals_of_a_sphere_point_along_its_radius():
    mesh = triangulated(ellipsoid("ball", (2, 2, 2), GREY, rows=33, columns=49))

    along = np.abs((mesh.normals * mesh.points).sum(1)) / np.linalg.norm(mesh.points, axis=1)
    assert along.min() > 0.99


def test_a_texture_is_laid_on_by_length_and_only_where_it_is_printed():
    profile = [(0.0, 0.0), (0.1, 0.0), (0.1, 0.1), (0.1, 0.3), (0.0, 0.3)]
    mesh = triangulated(lathe("can", profile, GREY, columns=9, printed=(1, 3)))

    down = mesh.uv[:, 1].reshape(5, 9)[:, 0]
    # Bottom and lid repeat the edges; the wall's lower third is the lower third of the picture.
    np.testing.assert_allclose(down, [1, 1, 2 / 3, 0, 0], atol=1e-9)


def test_turning_is_right_handed_and_a_mirrored_part_swaps_sides():
    np.testing.assert_allclose(rotation("z", 90) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    part = ellipsoid("left wing", (1, 1, 1), GREY).moved((0, 2, 0))

    partner = part.mirrored()

    assert partner.name == "right wing"
    np.testing.assert_allclose(partner.points, part.points * [1, -1, 1])
    assert mirrored_name("leftover") == "leftover"


def test_dials_stand_in_the_middle_for_the_template_and_do_not_depend_on_each_other():
    template, first, second = Dials("mug"), Dials("mug", 1), Dials("mug", 2)

    assert template.size("height", 0.1, 0.3) == pytest.approx(0.2)
    assert template.choice("handle", ("round", "square")) == "round"
    assert template.chance("lid", 0.0)
    before = first.size("height", 0.1, 0.3)
    first.size("radius", 0, 1)
    assert first.size("height", 0.1, 0.3) == before != second.size("height", 0.1, 0.3)
    assert Dials("mug", 1, 0).joint("arm", 0, 1) != Dials("mug", 1, 1).joint("arm", 0, 1)
    assert Dials("mug", 1, 0).size("height", 0.1, 0.3) == Dials("mug", 1, 1).size("height", 0.1, 0.3)
