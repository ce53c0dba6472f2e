"""A batch with every kind of awkward file: the good ones are done, the bad ones are explained."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import SelfsameError
from fiftyone_selfsame.fiftyone_plugin.compute import compute_ffa, compute_foreground
from PIL import Image

GOOD = ("plain", "one_pixel", "strip", "cmyk", "deep", "palette", "rgba", "grey", "rotated")
BAD = {
    "truncated": "broken or truncated image",
    "empty": "file is empty",
    "missing": "file does not exist",
    "folder": "is a directory",
    "text": "not an image file",
    "clip": "is video, not an image",
}


def write_zoo(folder):
    """One file of each kind; returns path by name."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    plain = Image.fromarray(noise)
    paths = {name: folder / f"{name}.png" for name in (*GOOD, *BAD)}
    for name in ("plain", "truncated", "cmyk", "rotated"):
        paths[name] = folder / f"{name}.jpg"
    paths["clip"] = folder / "clip.mp4"
    plain.save(paths["plain"])
    plain.resize((1, 1)).save(paths["one_pixel"])
    Image.effect_noise((20_000, 10), 80).convert("RGB").save(paths["strip"])
    plain.convert("CMYK").save(paths["cmyk"])
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(paths["deep"])
    plain.quantize(16).save(paths["palette"])
    plain.convert("RGBA").save(paths["rgba"])
    plain.convert("L").save(paths["grey"])
    exif = Image.Exif()
    exif[0x0112] = 6
    plain.save(paths["rotated"], exif=exif)
    paths["truncated"].write_bytes(paths["plain"].read_bytes()[:700])
    paths["empty"].touch()
    paths["folder"].mkdir()
    paths["text"].write_text("no picture")
    paths["clip"].write_bytes(b"\0" * 100)
    return paths


@pytest.fixture
def zoo(tmp_path, fo_dataset):
    """A flat view with all of :func:`write_zoo`, the video sample included, and the path by name."""
    paths = write_zoo(tmp_path)
    dataset = fo_dataset()
    dataset.add_group_field("group", default="image")
    samples = []
    for name, path in paths.items():
        media = "clip" if name == "clip" else "image"
        samples.append(fo.Sample(filepath=str(path), kind=name, group=fo.Group().element(media)))
    dataset.add_samples(samples)
    return dataset.select_group_slices(_allow_mixed=True)


def errors_by_kind(view, field):
    return dict(zip(*view.values(["kind", field]), strict=True))


@pytest.mark.parametrize("foreground", ["none", "one_pass", "grabcut"])
def test_every_good_picture_gets_a_vector_and_every_bad_one_an_explanation(zoo, tiny_model, foreground):
    summary = compute_ffa(zoo, model=tiny_model, foreground=foreground, batch_size=4, device="cpu", progress=False)

    vectors = dict(zip(*zoo.values(["kind", "ffa"]), strict=True))
    errors = errors_by_kind(zoo, "ffa_error")
    assert {kind for kind, vector in vectors.items() if vector is not None} == set(GOOD)
    for kind in GOOD:
        assert vectors[kind].dtype == np.float32
        assert np.linalg.norm(vectors[kind]) == pytest.approx(1, abs=1e-5)
        assert errors[kind] is None
    for kind, reason in BAD.items():
        assert reason in errors[kind]
        assert kind in errors[kind], "the message names the file"
    assert summary.counts == {"total": 15, "done": len(GOOD), "skipped": 0, "failed": len(BAD)}
    assert summary.failed == {i: e for i, e in zip(*zoo.values(["id", "ffa_error"]), strict=True) if e}


@pytest.mark.parametrize("method", ["one_pass", "grabcut"])
def test_every_good_picture_gets_a_mask_of_its_upright_size(zoo, tiny_model, tmp_path, method):
    compute_foreground(zoo, method, model=tiny_model, mask_dir=tmp_path / "masks", device="cpu", progress=False)

    paths = dict(zip(*zoo.values(["kind", "foreground.mask_path"]), strict=True))
    errors = errors_by_kind(zoo, "foreground_error")
    assert {kind for kind, path in paths.items() if path} == set(GOOD)
    sizes = {kind: Image.open(paths[kind]).size for kind in GOOD}
    assert sizes["plain"] == sizes["cmyk"] == (64, 48)
    assert (sizes["rotated"], sizes["strip"], sizes["one_pixel"]) == ((48, 64), (20_000, 10), (1, 1))
    assert all(reason in errors[kind] for kind, reason in BAD.items())


def test_a_picture_that_broke_since_loses_its_vector(fo_dataset, photos, tiny_model):
    paths = photos(2)
    dataset = fo_dataset(paths)
    options = {"model": tiny_model, "foreground": "none", "device": "cpu", "progress": False}
    compute_ffa(dataset, **options)

    paths[0].write_bytes(b"")
    broken = compute_ffa(dataset, **options)
    state = [vector is None for vector in dataset.values("ffa")], dataset.values("ffa_n_patches")[0]
    photos(1)
    repaired = compute_ffa(dataset, **options)

    assert (broken.counts["failed"], broken.counts["skipped"]) == (1, 1)
    assert state == ([True, False], None)
    assert (repaired.counts["done"], repaired.counts["failed"]) == (1, 0)
    assert dataset.values("ffa_error") == [None, None]


def test_a_sample_that_names_no_file_is_explained(fo_dataset, photos, tiny_model):
    dataset = fo_dataset(photos(2))
    # FiftyOne itself refuses it, but other programs write to its database too.
    dataset._sample_collection.update_one({"_id": dataset.first()._id}, {"$set": {"filepath": None}})

    summary = compute_ffa(dataset, model=tiny_model, foreground="none", device="cpu", progress=False)

    assert (summary.counts["done"], summary.counts["failed"]) == (1, 1)
    assert "no filepath" in dataset.values("ffa_error")[0]


def test_the_first_failure_stops_the_job_on_request(zoo, tiny_model):
    with pytest.raises(SelfsameError, match=r"sample [0-9a-f]{24} failed: .*/\w+\.\w+: "):
        compute_ffa(zoo, model=tiny_model, foreground="none", skip_failures=False, device="cpu", progress=False)
