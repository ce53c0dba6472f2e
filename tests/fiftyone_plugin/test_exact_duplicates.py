"""Exact duplicates in FiftyOne: the same bytes, the same picture, unreadable files, and runs that resume."""

import os
import shutil

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError, SelfsameError
from fiftyone_selfsame.fiftyone_plugin import fingerprints
from fiftyone_selfsame.fiftyone_plugin.duplicate_views import preview_counts, show_duplicate_groups
from fiftyone_selfsame.fiftyone_plugin.exact_duplicates import find_exact_duplicates, find_exact_duplicates_steps
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from PIL import Image


@pytest.fixture
def pictures(tmp_path):
    """One picture as PNG, a copy of that file, the picture as BMP, rotated by EXIF, and another picture."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    image.save(tmp_path / "c.bmp")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "d.png", exif=exif)
    Image.fromarray(pixels[::-1]).save(tmp_path / "e.png")
    return [tmp_path / name for name in ("a.png", "b.png", "c.bmp", "d.png", "e.png")]


def test_the_same_picture_is_found_in_every_format_and_orientation(fo_dataset, pictures):
    dataset = fo_dataset(pictures)

    summary = find_exact_duplicates(dataset)

    assert dataset.values("exact_group") == [0, 0, 0, 0, None]
    assert dataset.values("exact_size") == [4, 4, 4, 4, 1]
    assert dataset.values("exact_kind") == ["exact"] * 4 + [None]
    assert dataset.values("exact_similarity") == [1.0] * 4 + [None]
    assert summary.counts == {
        "total": 5, "done": 5, "skipped": 0, "failed": 0, "groups": 1, "duplicates": 3, "largest": 4,
    }  # fmt: skip


def test_by_bytes_only_equal_files_count_and_the_first_is_kept(fo_dataset, pictures):
    dataset = fo_dataset(pictures)

    find_exact_duplicates(dataset, "same_file", by="bytes")

    assert dataset.values("same_file_role") == ["keeper", "duplicate", "unique", "unique", "unique"]
    assert dataset.values("same_file_of")[1] == dataset.first().id


def test_the_size_of_the_file_decides_which_of_equal_pictures_is_kept(fo_dataset, pictures):
    dataset = fo_dataset(pictures)
    sizes = [os.path.getsize(path) for path in pictures[:4]]

    find_exact_duplicates(dataset, "large")
    find_exact_duplicates(dataset, "small", keeper={"file_size": -1.0})

    assert dataset.values("large_role").index("keeper") == int(np.argmax(sizes))
    assert dataset.values("small_role").index("keeper") == int(np.argmin(sizes))


def test_unreadable_files_are_explained_and_not_called_unique(fo_dataset, pictures, tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    bad = [tmp_path / name for name in ("empty.png", "broken.jpg", "missing.png")]
    dataset = fo_dataset(pictures + bad)

    summary = find_exact_duplicates(dataset)

    errors = dataset.values("exact_error")
    assert errors[:5] == [None] * 5
    assert "0 bytes" in errors[5]
    assert "not an image" in errors[6] or "truncated" in errors[6]
    assert "does not exist" in errors[7]
    assert dataset.values("exact_role")[5:] == [None] * 3
    assert dataset.values("exact_group")[:4] == [0] * 4
    assert summary.counts["failed"] == 3
    assert summary.failed == dict(zip(dataset.values("id")[5:], errors[5:], strict=True))


def test_a_video_dataset_is_explained_sample_by_sample(fo_dataset, tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"no film")

    summary = find_exact_duplicates(fo_dataset([tmp_path / "film.mp4"]))

    assert summary.counts["failed"] == 1
    assert "is video, not an image" in next(iter(summary.failed.values()))


def test_the_first_unreadable_file_raises_on_request(fo_dataset, pictures, tmp_path):
    dataset = fo_dataset([*pictures, tmp_path / "missing.png"])

    with pytest.raises(SelfsameError, match=r"missing\.png.*does not exist"):
        find_exact_duplicates(dataset, skip_failures=False)

    with pytest.raises(ConfigError, match="did not complete; run it again"):
        show_duplicate_groups(dataset, "exact")


def test_a_second_run_reads_only_new_and_changed_files(fo_dataset, pictures, tmp_path, monkeypatch):
    dataset = fo_dataset(pictures)
    find_exact_duplicates(dataset, by="bytes")
    read, digest = [], fingerprints.file_digest
    monkeypatch.setattr(fingerprints, "file_digest", lambda path: read.append(str(path)) or digest(path))
    shutil.copy(pictures[4], tmp_path / "f.png")
    dataset.add_samples(fo_dataset([tmp_path / "f.png"]))
    shutil.copy(pictures[0], pictures[2])

    summary = find_exact_duplicates(dataset, by="bytes")

    assert sorted(read) == sorted([str(pictures[2]), str(tmp_path / "f.png")])
    assert summary.counts["skipped"] == 4
    assert dataset.values("exact_group") == [0, 0, 0, None, 1, 1]


def test_an_interrupted_run_is_completed_by_the_next(fo_dataset, pictures):
    dataset = fo_dataset(pictures)
    steps = find_exact_duplicates_steps(dataset)
    next(steps)
    steps.close()

    summary = find_exact_duplicates(dataset)

    assert summary.counts["done"] + summary.counts["skipped"] == 5
    assert dataset.values("exact_group") == [0, 0, 0, 0, None]


def test_a_file_that_became_unreadable_loses_its_group(fo_dataset, pictures):
    dataset = fo_dataset(pictures)
    find_exact_duplicates(dataset)
    pictures[1].write_bytes(b"")

    find_exact_duplicates(dataset)

    assert dataset.values("exact_group") == [0, None, 0, 0, None]
    assert dataset.values("exact_role")[1] is None
    assert dataset.values("exact_digest")[1] is None


def test_a_view_is_respected_and_older_groups_outside_it_are_cleared(fo_dataset, pictures):
    dataset = fo_dataset(pictures)
    find_exact_duplicates(dataset)

    find_exact_duplicates(dataset[1:3])

    assert dataset.values("exact_role")[0] is None
    assert dataset.values("exact_group") == [None, 0, 0, None, None]


def test_groups_can_be_shown_but_have_no_threshold_to_move(fo_dataset, pictures):
    dataset = fo_dataset(pictures)
    find_exact_duplicates(dataset)

    assert len(show_duplicate_groups(dataset, "exact")) == 4
    assert preview_counts(dataset, "exact")["threshold"] is None
    with pytest.raises(ConfigError, match="exact duplicates, which have no threshold"):
        show_duplicate_groups(dataset, "exact", threshold=0.9)


def test_the_record_says_what_was_compared(fo_dataset, pictures):
    dataset = fo_dataset(pictures)
    find_exact_duplicates(dataset, by="bytes")

    record = load_record(dataset, "exact")

    assert record["method"] == "find_exact_duplicates"
    assert record["config"]["by"] == "bytes"
    assert record["counts"]["duplicates"] == 1
    assert record["details"]["keeper"]["file_size"] == 0.25


def test_wrong_options_and_empty_views(fo_dataset, pictures):
    dataset = fo_dataset(pictures)

    with pytest.raises(ConfigError, match="by='hash' is unknown; use one of pixels, bytes"):
        find_exact_duplicates(dataset, by="hash")
    summary = find_exact_duplicates(dataset.exclude(dataset.values("id")))

    assert summary.key is None
    assert "no samples" in str(summary)
