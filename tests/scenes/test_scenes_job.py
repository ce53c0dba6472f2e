"""Rendering sets: the plan, the pictures, resuming, failures, the command line."""

import json
from collections import Counter

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fixtures.scenes import job
from fiftyone_selfsame.fixtures.scenes.__main__ import main
from fiftyone_selfsame.fixtures.scenes.compose import compose
from fiftyone_selfsame.fixtures.scenes.packaged import TINY_BYTES, TINY_FOLDER
from fiftyone_selfsame.fixtures.scenes.plan import CLUTTER_FROM, PRESETS, shots
from fiftyone_selfsame.fixtures.scenes.records import read_scenes
from fiftyone_selfsame.fixtures.scenes.render import despeckled


def test_the_full_set_has_ten_thousand_pictures_and_eight_objects_in_every_category():
    planned = shots(PRESETS["full"], 0)
    objects = {subject[:2] for shot in planned for subject in shot.subjects}

    assert len(planned) >= 10_000
    assert min(Counter(category for category, _ in objects).values()) >= 8
    assert len({shot.name for shot in planned}) == len(planned)
    assert {shot.size for shot in planned} <= set(range(224, 337))
    assert {len(shot.subjects) for shot in planned if shot.protocol == "multi"} == {1, 2, 3, 4, 5, 6}


def test_a_plan_depends_on_its_seed_alone():
    assert shots(PRESETS["tiny"], 0) == shots(PRESETS["tiny"], 0)
    assert shots(PRESETS["tiny"], 0) != shots(PRESETS["tiny"], 1)


def test_the_first_pictures_of_a_plan_are_a_fair_sample():
    planned = shots(PRESETS["full"], 0)
    share = Counter(shot.protocol for shot in planned[:2000])

    for protocol, count in Counter(shot.protocol for shot in planned).items():
        assert share[protocol] / 2000 == pytest.approx(count / len(planned), abs=0.03)


def test_relit_pictures_differ_in_light_alone(tiny_shots):
    names = [name for name in tiny_shots if name.startswith("mug-00_lighting")]
    scenes = [compose(tiny_shots[name], 0) for name in names]

    assert len(scenes) >= 2
    assert all(scene.camera == scenes[0].camera for scene in scenes)
    assert scenes[0].stage.lamps != scenes[1].stage.lamps


def test_turntable_pictures_differ_in_azimuth_alone(tiny_shots):
    scenes = [compose(tiny_shots[f"mug-00_pose_{frame:02d}"], 0) for frame in range(3)]

    assert {scene.camera.elevation for scene in scenes} == {scenes[0].camera.elevation}
    turns = np.diff(sorted(scene.camera.azimuth for scene in scenes))
    np.testing.assert_allclose(turns, 120, atol=0.01)


def test_clutter_is_never_a_subject_and_never_of_its_category(tiny_scenes):
    clutter = [
        (image.objects[0].category, entry)
        for image in tiny_scenes.values()
        for entry in image.objects
        if entry.role == "clutter"
    ]

    assert len(clutter) > 20
    for category, entry in clutter:
        assert int(entry.object_id.rsplit("-", 1)[1]) >= CLUTTER_FROM
        assert entry.category != category


def test_subjects_can_be_seen(tiny_scenes):
    for image in tiny_scenes.values():
        if image.protocol != "multi":
            assert image.objects[0].visible_share >= 0.4
            assert (image.instances() == 1).mean() > 0.01


def test_pictures_are_neither_black_nor_burnt_out(tiny_scenes):
    for image in tiny_scenes.values():
        picture = image.image()
        subject = picture[image.instances() == 1] / 255
        assert 0.02 < subject.mean() < 0.97, image.name
        assert (picture.min(-1) > 250).mean() < 0.6, image.name
        assert subject.std() > 0.01, image.name


def test_the_packaged_set_is_complete_small_and_what_the_code_renders(tiny_scenes, tiny_shots, tmp_path):
    assert tiny_scenes.keys() == tiny_shots.keys()
    assert sum(path.stat().st_size for path in TINY_FOLDER.rglob("*") if path.is_file()) < TINY_BYTES
    job._prepare(tmp_path, "tiny", PRESETS["tiny"], 0)
    assert json.loads((tmp_path / "settings.json").read_text()) == json.loads(
        (TINY_FOLDER / "settings.json").read_text()
    )
    for name in ("apple-00_in-the-wild_00", "multi_0002"):
        again = job.take(tiny_shots[name], tmp_path, PRESETS["tiny"].samples, 0)
        packaged = tiny_scenes[name]
        assert np.abs(again.image().astype(int) - packaged.image()).mean() < 2
        assert (again.instances() != packaged.instances()).mean() < 0.002
        assert np.abs(again.surface() - packaged.surface()).mean() < 0.002


def test_a_picture_is_the_same_byte_for_byte_whenever_it_is_taken(tiny_shots, tmp_path):
    # The scene with most lamps: which of them a path asks must not depend on the order in which they were loaded.
    shots_ = [shot for shot in tiny_shots.values() if shot.protocol in ("cosalient", "pairs")][:20]
    shot = max(shots_, key=lambda one: len(compose(one, 0).stage.lamps))
    files = []
    for number in range(4):
        folder = tmp_path / str(number)
        job._prepare(folder, "tiny", PRESETS["tiny"], 0)
        image = job.take(shot, folder, 2, 0)
        files.append([image.path(kind).read_bytes() for kind in ("images", "surface", "records")])

    assert len(compose(shot, 0).stage.lamps) == 3
    assert files.count(files[0]) == 4


def test_an_interrupted_set_goes_on_where_it_was(tmp_path, capsys):
    first = job.render_set("tiny", tmp_path, workers=1, limit=2)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").iterdir()}
    # As a kill would leave it: a picture without its record, and a half-written record.
    (tmp_path / "images" / "stray.jpg").write_bytes(b"half")
    next((tmp_path / "records").glob("*.json")).with_suffix(".part").write_text("{")

    second = job.render_set("tiny", tmp_path, workers=1, limit=3)

    assert (first.made, first.kept) == (2, 0)
    assert (second.made, second.kept) == (1, 2)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert len(read_scenes(tmp_path)) == 3


def test_a_failing_picture_is_named_and_the_others_are_made(tmp_path, monkeypatch, capsys):
    planned = shots(PRESETS["tiny"], 0)[:2]

    def fragile(scene, samples, seed):
        if scene.placed[0].thing.object_id == compose(planned[0], 0).placed[0].thing.object_id:
            raise ValueError("no light")
        return np.zeros((scene.camera.height, scene.camera.width, 3), np.uint8)

    monkeypatch.setattr(job, "render", fragile)

    outcome = job.render_set("tiny", tmp_path, workers=1, limit=2)

    assert outcome.failed == {planned[0].name: "ValueError: no light"}
    assert [image.name for image in read_scenes(tmp_path)] == [planned[1].name]
    assert planned[0].name in capsys.readouterr().out


def test_another_seed_does_not_get_into_the_same_folder(tmp_path):
    job._prepare(tmp_path, "tiny", PRESETS["tiny"], 0)

    with pytest.raises(ConfigError, match="another preset, seed or version"):
        job.render_set("tiny", tmp_path, seed=1, workers=1, limit=1)


def test_two_workers_make_the_same_pictures_as_one(tmp_path, capsys):
    status = main(["--preset", "tiny", "--out", str(tmp_path / "two"), "--workers", "2", "--limit", "2"])
    job.render_set("tiny", tmp_path / "one", workers=1, limit=2)

    assert status == 0
    for path in (tmp_path / "one" / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "images" / path.name).read_bytes()
    assert "2 pictures rendered" in capsys.readouterr().out


def test_fireflies_go_and_edges_stay():
    radiance = np.full((9, 9, 3), 0.2)
    radiance[:, 5:] = 0.8
    speckled = radiance.copy()
    speckled[4, 2] = 30

    np.testing.assert_allclose(despeckled(speckled), radiance)


def test_a_folder_without_scenes_is_refused_with_the_command_that_makes_some(tmp_path):
    with pytest.raises(ConfigError, match="--preset tiny"):
        read_scenes(tmp_path)


def test_a_broken_record_is_named(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "mug.json").write_text("{")

    with pytest.raises(ConfigError, match=r"mug\.json: broken record"):
        read_scenes(tmp_path)
