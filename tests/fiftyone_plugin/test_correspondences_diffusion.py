"""Correspondences with features of a tiny diffusion network beside those of the embedded encoder."""

import sys
from concurrent.futures import ThreadPoolExecutor

import fiftyone as fo
import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.correspondence.diffusion import DiffusionConfig, DiffusionFeatures
from fiftyone_selfsame.brain.correspondence.features import FeatureExtractor
from fiftyone_selfsame.brain.correspondence.views import IDENTITY, MIRROR
from fiftyone_selfsame.brain.errors import ConfigError, ModelError
from fiftyone_selfsame.brain.geometry import image_to_canvas, plan_geometry
from fiftyone_selfsame.brain.images import decode_image
from fiftyone_selfsame.fiftyone_plugin import correspondence_setup
from fiftyone_selfsame.fiftyone_plugin.compute_correspondences import compute_correspondences
from fiftyone_selfsame.fiftyone_plugin.correspondence_job import DescribedShelf, Picture, comparable
from fiftyone_selfsame.fiftyone_plugin.correspondence_setup import CorrespondenceOptions
from fiftyone_selfsame.fiftyone_plugin.correspondence_table import load_correspondences
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from fiftyone_selfsame.fiftyone_plugin.evaluate_correspondences import evaluate_correspondences
from fiftyone_selfsame.fiftyone_plugin.pairs import read_pairs
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from fiftyone_selfsame.fixtures.diffusion_folders import make_diffusion_folder
from fiftyone_selfsame.fixtures.joint_components import joint_features
from PIL import Image

SIDE, CELL = 160, 16
SHIFT = np.array([32, 16])
NAMES = ["left eye", "right eye", "nose", "tail"]
POINTS = np.array([[56.0, 40], [120, 56], [88, 104], [136, 136]])
PLACES = {
    "own": POINTS,
    "shifted": POINTS - SHIFT,
    "mirrored": (POINTS * [-1, 1] + [SIDE, 0])[[1, 0, 2, 3]],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("diffusers")
    return str(make_diffusion_folder(tmp_path_factory.mktemp("diffusion") / "tiny"))


@pytest.fixture(autouse=True)
def small_and_at_home(tmp_path, monkeypatch):
    """Tables and tokens go to a folder of this test, and the network sees small pictures."""
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(correspondence_setup, "DIFFUSION", DiffusionConfig(size=192, crop=128))


@pytest.fixture
def passes(monkeypatch):
    """The pictures that the diffusion network was shown."""
    shown, layers = [], DiffusionFeatures.layers

    def counted(self, image):
        shown.append(image)
        return layers(self, image)

    monkeypatch.setattr(DiffusionFeatures, "layers", counted)
    return shown


@pytest.fixture
def files(tmp_path):
    """A picture of many colours, a shifted copy and a mirrored one, by name."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 12, 3), dtype=np.uint8))
    whole = np.asarray(coarse.resize((SIDE + 32, SIDE + 32), Image.Resampling.BICUBIC))
    own = whole[:SIDE, :SIDE]
    copies = {"own": own, "shifted": whole[SHIFT[1] :, SHIFT[0] :][:SIDE, :SIDE], "mirrored": own[:, ::-1]}
    for name, picture in copies.items():
        Image.fromarray(np.ascontiguousarray(picture)).save(tmp_path / f"{name}.png")
    return {name: tmp_path / f"{name}.png" for name in copies}


@pytest.fixture
def made(fo_dataset, files):
    """A factory of the pairs of the picture with copies of it."""
    created = []

    def make(*names):
        dataset = fo_dataset([files[name] for name in ("own", *names)])
        dataset.default_skeleton = fo.KeypointSkeleton(labels=NAMES, edges=[])
        labels = [fo.Keypoint(label="cat", points=PLACES[name] / SIDE) for name in ("own", *names)]
        dataset.set_values("points", [fo.Keypoints(keypoints=[one]) for one in labels])
        ids = dataset.values("id")
        pairs = create_pairs(dataset, pairs=[(ids[0], other) for other in ids[1:]], fields=["points"])
        created.append(pairs)
        return pairs

    yield make
    for pairs in created:
        pairs.delete()


def match(pairs, diffusion, **options):
    defaults = {"keypoints": "points", "model": "embedded-hybrid", "size": SIDE, "device": "cpu", "progress": False}
    return compute_correspondences(pairs, "corr", diffusion=diffusion, **{**defaults, **options})


def value(pairs, short):
    """A value of the only pair."""
    (row,) = read_pairs(pairs, [f"corr_{short}"])
    return row.values[f"corr_{short}"]


def _by_hand(folder, files, names):
    """Unit descriptors ``(h, w, C)`` of pictures that are compared with each other."""
    backbone = load_backbone("embedded-hybrid", device="cpu")
    network = DiffusionFeatures(folder, correspondence_setup.DIFFUSION, device="cpu")
    geometry = plan_geometry((SIDE, SIDE), SIDE, CELL, "letterbox")
    pictures = [decode_image(str(files[name])) for name in names]
    canvases = [image_to_canvas(picture, geometry)[None] for picture in pictures]
    with torch.inference_mode():
        tokens = [backbone.tokens(canvas, final_norm=False).patch[0].numpy() for canvas in canvases]
    layers = [[layer.numpy() for layer in network.layers(picture)] for picture in pictures]
    return joint_features(layers, tokens, 256)


def test_matches_are_those_of_each_pair_by_hand(made, folder, files, passes):
    pairs = made("shifted", "mirrored")

    summary = match(pairs, folder, decoding="nearest", label_free=False)

    # The source once for both its pairs.
    assert len(passes) == 3
    assert summary.counts == {"total": 2, "done": 2, "skipped": 0, "failed": 0, "matches": 8}
    table = load_correspondences(pairs, "corr")
    for number, name in enumerate(("shifted", "mirrored")):
        source, target = _by_hand(folder, files, ("own", name))
        columns, rows = (POINTS // CELL).astype(int).T
        similarity = source[rows, columns] @ target.reshape(-1, target.shape[2]).T
        best = similarity.argmax(axis=1)
        expected = np.stack([best % 10, best // 10], 1) * CELL + CELL / 2
        found = table[number * 4 : number * 4 + 4]
        np.testing.assert_allclose(found[["target_x", "target_y"]].to_numpy() * SIDE, expected)
        # Tokens are kept as float16.
        np.testing.assert_allclose(found["similarity"], similarity.max(axis=1), atol=2e-3)
    assert evaluate_correspondences(pairs, "corr", progress=False).counts["done"] == 2


def test_mirrored_views_share_the_components_of_their_pair(made, folder, passes):
    pairs = made("mirrored")

    summary = match(pairs, folder, alignment="mirror")

    # Both pictures as they are and mirrored.
    assert len(passes) == 4
    assert summary.details["errors"] == {"correct": 4}
    assert value(pairs, "view") == "mirror"
    # The mirrored source is the target, pixel by pixel.
    assert value(pairs, "distance_mirrored") == pytest.approx(0, abs=1e-3)
    assert value(pairs, "distance") > 0.1
    assert value(pairs, "imd_gap") > 0
    target = pairs.select_group_slices("target").first()
    assert all(label.handed_over for label in target.corr.keypoints)
    assert [label.confidence[0] for label in target.corr.keypoints] == pytest.approx([1] * 4, abs=1e-3)
    assert [np.isfinite(label.mirror_insensitivity) for label in target.corr.keypoints[:2]] == [True, True]


def test_without_keypoints_and_with_all_views(made, folder):
    pairs = made("mirrored")

    summary = match(pairs, folder, keypoints=None, count=12, alignment="all")

    table = load_correspondences(pairs, "corr")
    assert len(table) == summary.counts["matches"] == 12
    source, target = (table[[f"{side}_x", f"{side}_y"]].to_numpy() * SIDE for side in ("source", "target"))
    assert np.abs(source * [-1, 1] + [SIDE, 0] - target).max() < CELL
    assert value(pairs, "view") == "mirror"


def test_only_a_changed_setting_matches_again(made, folder, passes, tmp_path):
    pairs = made("shifted", "mirrored")
    match(pairs, folder)
    config = load_record(pairs, "corr")["config"]
    assert config["diffusion"] == folder
    assert config["features"]["components"] == 256
    assert config["features"]["second"]["timestep"] == 50
    passes.clear()

    assert match(pairs, folder).counts["skipped"] == 2
    # Another decoding takes new matches, but no new features.
    assert match(pairs, folder, decoding="soft").counts["done"] == 2
    assert passes == []
    other = str(make_diffusion_folder(tmp_path / "other", seed=1))
    assert match(pairs, other, decoding="soft").counts["done"] == 2
    assert len(passes) == 1 + 2 * 2
    with_it = load_correspondences(pairs, "corr")["similarity"]
    assert match(pairs, None, decoding="soft").counts["done"] == 2
    assert not np.allclose(load_correspondences(pairs, "corr")["similarity"], with_it, atol=1e-3)


def test_without_it_settings_are_what_they_were():
    options = CorrespondenceOptions(model="embedded-hybrid", size=SIDE, device="cpu")

    settings = options.settings(options.load())

    assert "diffusion" not in settings
    assert settings["features"]["second"] is None
    assert settings["features"]["components"] is None
    assert not options.keeps_tokens


def test_a_model_that_is_not_there_is_named(made, tmp_path, monkeypatch):
    pytest.importorskip("diffusers")
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(tmp_path))
    pairs = made("shifted")
    (tmp_path / "empty").mkdir()
    for wrong in (str(tmp_path / "empty"), "nobody/nothing-of-this-name"):
        with pytest.raises(ModelError, match="put a folder in the format of diffusers"):
            match(pairs, wrong)
    for wrong in ("", 5):
        with pytest.raises(ConfigError, match=f"diffusion={wrong!r} must name a model"):
            match(pairs, wrong)
    assert pairs.get_field("corr") is None


def test_without_the_extra_the_message_says_how_to_get_it(made, monkeypatch):
    pairs = made("shifted")
    monkeypatch.setitem(sys.modules, "diffusers", None)

    with pytest.raises(ConfigError, match=r'pip install "fiftyone-selfsame\[diffusion\]"'):
        match(pairs, "stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert pairs.get_field("corr") is None
    assert match(pairs, None).counts["done"] == 1


def test_a_small_shelf_holds_little_and_still_no_picture_is_shown_twice(folder, files, passes):
    options = CorrespondenceOptions(model="embedded-hybrid", size=SIDE, device="cpu", diffusion=folder)
    extractor = options.load()
    one, other = Picture(str(files["own"])), Picture(str(files["shifted"]))
    with ThreadPoolExecutor(1) as pool:
        shelf = DescribedShelf(extractor, pool, cached=options.keeps_tokens, max_bytes=1)
        first = shelf.fetch({one: {IDENTITY, MIRROR}})[one]
        shelf.fetch({other: {IDENTITY}})
        again = shelf.fetch({one: {IDENTITY, MIRROR}})[one]
    assert again is not first
    assert len(passes) == 3
    cells = 3 * 3 * 32 + 6 * 6 * 32 + 12 * 12 * 16 + 10 * 10 * extractor.backbone.dim
    assert first.nbytes == 2 * 4 * cells
    for view in (IDENTITY, MIRROR):
        for kept, made_again in zip(first.views[view].layers, again.views[view].layers, strict=True):
            assert torch.equal(kept, made_again)


def test_features_of_a_backbone_alone_are_compared_as_they_are(files):
    options = CorrespondenceOptions(model="embedded-hybrid", size=SIDE, device="cpu")
    extractor: FeatureExtractor = options.load()
    described = {view: extractor(decode_image(str(files["own"])), view=view) for view in (IDENTITY, MIRROR)}

    source, target = comparable({MIRROR: described[MIRROR]}, described)

    assert source[MIRROR] is described[MIRROR]
    assert list(target.values()) == list(described.values())
