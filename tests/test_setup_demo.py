"""The demo: what it does with datasets, folders and plugins that are there already, and the table at its end."""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import fiftyone as fo
import pytest
from fiftyone_selfsame.brain.errors import ConfigError, SelfsameError
from fiftyone_selfsame.fiftyone_plugin import api
from fiftyone_selfsame.fixtures import demo_job, demo_search
from fiftyone_selfsame.fixtures.demo_photos import demo_photos
from fiftyone_selfsame.fixtures.private_database import private_database
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    """A folder with three pictures, two of them alike, one in a sub-folder, and a file that is no picture."""
    folder = tmp_path / "holiday" / "photos"
    (folder / "day two").mkdir(parents=True)
    Image.effect_noise((90, 70), 60).convert("RGB").save(folder / "a.png")
    Image.open(folder / "a.png").save(folder / "day two" / "b.bmp")
    Image.new("RGB", (80, 80), (200, 30, 30)).save(folder / "c.jpg")
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture
def leave_no_datasets():
    yield
    for name in fo.list_datasets("selfsame-demo*"):
        fo.delete_dataset(name)


def run_demo(*arguments: str) -> subprocess.CompletedProcess:
    """Runs the demo as on a machine where nothing is configured."""
    ours = ("FIFTYONE_DATABASE_URI", "FIFTYONE_PLUGINS_DIR", "SELFSAME_HOME")
    return subprocess.run(
        [sys.executable, "-m", "fiftyone_selfsame.fixtures.demo", *arguments],
        env={name: value for name, value in os.environ.items() if name not in ours},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_the_demo_ends_with_a_table_and_its_second_run_computes_nothing(photos, tmp_path):
    arguments = ["--images", str(photos), "--home", str(tmp_path / "home"), "--model", "embedded", "--no-app"]

    first, second = run_demo(*arguments), run_demo(*arguments)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    columns = "job +images +done +unchanged +failed +groups +duplicates +regions +seconds +images/s"
    assert re.search(f"^{columns}$", first.stdout, re.MULTILINE)
    assert re.search(r"^compute_ffa +3 +3 +0 +0 ", first.stdout, re.MULTILINE)
    assert re.search(r"^find_exact_duplicates +3 +3 +0 +0 +1 +1 ", first.stdout, re.MULTILINE)
    assert re.search(r"^compute_ffa +3 +0 +3 +0 ", second.stdout, re.MULTILINE)
    assert re.search(r"^compute_claid_regions +3 +3 +0 +0 ", first.stdout, re.MULTILINE)
    assert re.search(r"^build_region_index +3 +0 +3 +0 ", second.stdout, re.MULTILINE)


def test_the_demo_finds_a_carton_among_shelves_of_others(leave_no_datasets):
    dataset = demo_job.build_dataset(None, None)
    cartons = dataset.match({"object": {"$regex": "juice|milk|yoghurt"}})
    dataset.delete_samples([one for one in dataset.values("id") if one not in set(cartons.values("id"))])
    api.compute_claid_regions(dataset, model="embedded-hybrid", device="cpu", progress=False)

    rows = demo_search.search_step(dataset)

    assert [row["shows"] for row in rows[:3]] == ["bravo-apple-juice"] * 3
    assert all(row["photograph"] != demo_search.PHOTOGRAPH for row in rows)
    view = dataset.load_saved_view(demo_search.VIEW)
    assert view.values("demo_search_rank") == [1, 2, 3, 4, 5]


def test_a_folder_without_pictures_ends_the_demo_with_advice(tmp_path):
    done = run_demo("--images", str(tmp_path), "--home", str(tmp_path / "home"), "--no-app")

    assert done.returncode == 1
    assert f"no image files in {tmp_path}; give a folder with photographs: IMAGES=/folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demos_photographs_come_with_copies_that_are_made_once(tmp_path):
    photos = demo_photos(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = demo_photos(tmp_path)

    assert again == photos
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    assert {photo.path for photo in photos if photo.edit} == set(written)
    assert all(photo.path.is_file() for photo in photos)
    assert len({photo.object_id for photo in photos if not photo.edit}) >= 12


def test_a_rebuilt_dataset_keeps_what_the_user_added_and_gains_new_files(photos, leave_no_datasets):
    dataset = demo_job.build_dataset(None, photos)
    sample = dataset.first()
    sample.tags.append("mine")
    sample.save()
    Image.new("RGB", (20, 20)).save(photos / "d.png")

    again = demo_job.build_dataset(None, photos)

    assert again.name == "selfsame-demo-holiday-photos"
    assert len(again) == 4
    assert again[sample.id].tags == ["mine"]


def test_a_dataset_that_the_demo_did_not_make_is_left_alone(photos, fo_dataset):
    theirs = fo_dataset([photos / "a.png"])

    with pytest.raises(ConfigError, match="was not made by the demo, which leaves it alone"):
        demo_job.build_dataset(theirs.name, photos)

    assert len(theirs) == 1


def test_one_name_does_not_serve_two_folders(photos, leave_no_datasets):
    demo_job.build_dataset("selfsame-demo-test", photos)

    with pytest.raises(ConfigError, match="give this one another name"):
        demo_job.build_dataset("selfsame-demo-test", photos / "day two")


def test_the_app_alone_asks_for_the_demo_first():
    with pytest.raises(ConfigError, match="there is no dataset 'nobody' yet; make demo builds it"):
        demo_job.run(argparse.Namespace(name="nobody", only_app=True, no_app=False))


def test_the_plugin_is_linked_once_and_an_installed_copy_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path / "plugins"))
    link = demo_job.link_plugin()
    assert link == tmp_path / "plugins" / "@selfsame" / "curation"
    assert link.resolve() == demo_job.ROOT
    assert demo_job.link_plugin() == link

    installed = tmp_path / "others" / "theirs"
    installed.mkdir(parents=True)
    (installed / "fiftyone.yml").write_text('name: "@selfsame/curation"\n')
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path / "others"))
    assert demo_job.link_plugin() == installed


def test_a_private_database_ends_with_its_process_and_is_not_shared(tmp_path):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from fiftyone_selfsame.fixtures.private_database import private_database\n"
        "with private_database(Path(sys.argv[1])) as address: print(address, flush=True); time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout.readline().startswith("mongodb://127.0.0.1:")
        with pytest.raises(SelfsameError, match="is in use: end the other demo"), private_database(tmp_path):
            pass
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()

    deadline = time.monotonic() + 60
    while (Path(tmp_path) / "mongod.lock").stat().st_size:
        assert time.monotonic() < deadline, "the server outlived its process"
        time.sleep(0.1)
    before = os.environ["FIFTYONE_DATABASE_URI"]
    with private_database(tmp_path) as address:
        assert os.environ["FIFTYONE_DATABASE_URI"] == address != before
    assert os.environ["FIFTYONE_DATABASE_URI"] == before
