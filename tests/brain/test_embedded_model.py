"""The model that the package carries: within its limits, documented, and worth its place."""

import json

import numpy as np
import pytest
import torch
from fiftyone_selfsame.benchmarks.manifest import load_manifest
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.backbones.embedded import EMBEDDED_FOLDER
from fiftyone_selfsame.brain.ffa import FFAExtractor, ffa_preset
from fiftyone_selfsame.brain.foreground import load_foreground
from fiftyone_selfsame.brain.images import decode_image
from fiftyone_selfsame.brain.metrics.retrieval import retrieval_scores
from fiftyone_selfsame.fixtures.scenes.correspondences import correspondences
from fiftyone_selfsame.fixtures.scenes.packaged import TINY_FOLDER
from fiftyone_selfsame.fixtures.scenes.records import read_scenes
from PIL import Image
from safetensors import safe_open


def test_the_folder_is_within_its_limits_and_half_precision():
    with safe_open(EMBEDDED_FOLDER / "model.safetensors", "pt") as weights:
        tensors = [weights.get_tensor(name) for name in weights.keys()]  # noqa: SIM118

    assert {tensor.dtype for tensor in tensors} == {torch.float16}
    assert sum(tensor.numel() for tensor in tensors) <= 6_000_000
    assert sum(path.stat().st_size for path in EMBEDDED_FOLDER.rglob("*") if path.is_file()) <= 12 * 2**20
    assert load_backbone("embedded", device="cpu").patch_size <= 16


def test_the_card_says_what_it_is_and_whose_photographs_it_saw():
    card = (EMBEDDED_FOLDER / "README.md").read_text("utf-8")

    for phrase in ("demo grade", "not DINOv2", "Marcus Klasson", "MIT License", "Apache-2.0", "--seed 0"):
        assert phrase.lower() in card.lower(), phrase
    assert "Apache License" in (EMBEDDED_FOLDER / "LICENSE").read_text("utf-8")


def test_the_run_that_made_it_is_on_record():
    facts = json.loads((EMBEDDED_FOLDER / "training.json").read_text("utf-8"))
    log = (EMBEDDED_FOLDER / "train_log.csv").read_text("utf-8").splitlines()

    assert facts["settings"]["seed"] == 0
    assert facts["data"]["photographs"] == 2200
    assert log[-1].startswith(f"{facts['settings']['steps']},")
    assert (EMBEDDED_FOLDER / "train_curve.svg").is_file()


def vectors(name, images, foreground="one_pass"):
    """Unit FFA vectors of pictures."""
    config = ffa_preset("default").config
    extractor = FFAExtractor(load_backbone(name, device="cpu"), load_foreground(foreground), config)
    found = [extractor.embed([extractor.prepare(image)])[0].vector for image in images]
    return np.stack(found)


def mean_average_precision(name, images, objects):
    found = vectors(name, images)
    return retrieval_scores(found @ found.T, objects, None, None).map


def test_it_finds_rendered_objects_better_than_untrained_weights():
    items = [item for item in load_manifest(TINY_FOLDER).items if item.group == "lighting"]
    images, objects = [decode_image(item.path) for item in items], [item.object_id for item in items]

    assert mean_average_precision("embedded", images, objects) > mean_average_precision(
        "embedded-untrained", images, objects
    )


def test_its_tokens_find_corresponding_places_better_than_untrained_ones():
    scenes = {image.name: image for image in read_scenes(TINY_FOLDER)}
    names = ("car-00", "quadruped-00", "chair-01", "teddy-00", "bird-01", "mug-00", "bottle-00", "aeroplane-01")
    pairs = [(scenes[f"{name}_pose_00"], scenes[f"{name}_lighting_dim"]) for name in names]

    assert _share_found("embedded", pairs) > _share_found("embedded-untrained", pairs)


def _share_found(name, pairs):
    """Share of corresponding places whose most similar token lies within an eighth of the picture."""
    backbone = load_backbone(name, device="cpu")
    side = 20 * backbone.patch_size
    hits = []
    for first, second in pairs:
        here, there = correspondences(first, second)
        if not len(here):
            continue
        pictures = [np.asarray(Image.fromarray(image.image()).resize((side, side))) for image in (first, second)]
        batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        tokens = torch.nn.functional.normalize(backbone.tokens(batch).patch, dim=-1)
        cells = (here / first.width * 20).astype(int)
        query = tokens[0][cells[:, 1], cells[:, 0]]
        best = (query @ tokens[1].flatten(0, 1).T).argmax(1).numpy()
        found = np.stack([best % 20, best // 20], 1) + 0.5
        hits.append(np.linalg.norm(found / 20 - there / second.width, axis=1) < 1 / 8)
    return np.concatenate(hits).mean()


@pytest.mark.slow
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("name", ["embedded", "embedded-hybrid"])
def test_on_photographs_it_beats_what_needs_no_learning(shared_dir, name, grey):
    """Floors on the same photographs: the histogram of the GrabCut foreground; without colour, untrained tokens."""
    items = load_manifest(shared_dir / "data" / "objid_wild").items
    images = [decode_image(item.path) for item in items]
    if grey:
        images = [np.asarray(Image.fromarray(image).convert("L").convert("RGB")) for image in images]

    floor = 0.16 if grey else 0.458
    assert mean_average_precision(name, images, [item.object_id for item in items]) > floor
